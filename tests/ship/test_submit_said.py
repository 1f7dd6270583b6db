"""What submit does about everything that Kaggle says of a dataset, a push, a run and a scoring.

One table: what is said, how submit ends (its exit code, its words, the way on), and that the same
command then finishes without a second submission, or says why it does not.
"""

from __future__ import annotations

import importlib.util
import time
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from kagflow.errors import KagflowError, RefusedError
from kagflow.rehearse import settings as settings_file
from kagflow.rehearse.faults import NAMED, Fault
from kagflow.ship.records import HoursRow, Records, SubmissionRow
from kagflow.ship.remote import Remote
from kagflow.ship.submit import SubmitRequest, execute, make_plan

STATUS, SCORE = "GetKernelSessionStatus", "GetSubmission"
SLUG = "tiny-saved"


def load(name):
    path = Path(__file__).parents[1] / name
    spec = importlib.util.spec_from_file_location(f"said_{path.stem}", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


roads = load("ship/test_submit.py")


@dataclass(frozen=True)
class Case:
    """What is said; `code` 0 is success, `finally_` how the same command ends without it."""

    said: tuple[Fault, ...]
    code: int = 0
    words: str = ""
    way: str = ""
    finally_: str = "scored"
    pushes: int = 1
    versions: int = 2
    cause: str | None = None


def answers(at, *, times=0, effect=True, **fields):
    return (Fault(at, "answer", times, fields=fields, effect=effect),)


def named(name, **changes):
    return (replace(NAMED[name], **changes),)


CASES = {
    # -- the dataset
    "dataset takes its time": Case(named("dataset-slow")),
    "dataset processed again": Case(named("dataset-again")),
    "dataset without a state": Case(named("dataset-nothing")),
    "dataset never ready": Case(
        named("dataset-slow", times=0), 5, "is not ready after 60 minutes", "it waits on"
    ),
    "dataset failed": Case(
        named("dataset-failed"), 4, "could not process dataset .*: FAILED", "the same command again"
    ),
    "dataset answer lost": Case(named("lost-answer", at="CreateDataset", times=2)),
    # -- the push
    "no session free for a while": Case(named("no-slot", times=3)),
    "no session free": Case(
        named("no-slot", times=0), 4, "Maximum batch GPU session count", "a running kernel ends"
    ),
    "weekly quota reached": Case(
        named("no-quota", times=0), 4, "Maximum weekly GPU quota of 30.00 hours", "kagflow quota"
    ),
    "input not found": Case(
        named("invalid-source"), 4, "without some of its inputs", "stop it on its page"
    ),
    "push without a version": Case(named("no-version"), 4, "answered without a version"),
    "push answer lost": Case(named("lost-answer", at="SaveKernel")),
    "push answer lost, then no answers": Case(
        named("lost-answer", at="SaveKernel")
        + named("dropped", at="GetKernel", skip=2, times=99),
        5, "no answer", "run the same command again",
    ),
    # -- the run
    "kernel fails": Case(
        answers(STATUS, status="ERROR", failureMessage="Your notebook ran out of memory"),
        4, "kernel .* version 1 failed: Your notebook ran out", "kagflow history", pushes=2,
        cause="out of memory",
    ),
    "kernel cancelled": Case(
        named("kernel-cancelled"), 4, "kernel .* version 1 failed: CANCEL_ACK", "kagflow history",
        pushes=2, cause="out of time",
    ),
    "kernel saved and never run": Case(
        answers(STATUS, status="NEW_SCRIPT"), 4, "kernel .* version 1 failed: NEW_SCRIPT",
        "kagflow history", pushes=2,
    ),
    "kernel stuck": Case(
        named("kernel-stuck"), 5, "kernel .* version 1 has not ended after", "it waits on"
    ),
    "kernel in a state unheard of": Case(named("kernel-unheard-of", times=3)),
    "kernel being cancelled": Case(answers(STATUS, times=2, status="CANCEL_REQUESTED")),
    # -- the submission
    "daily limit counted": Case(
        answers("GetSubmissionLimits", effect=False, numToday=5, numAllowedNow=0), 4,
        "all 5 submissions of today", "after 00:00 UTC",
    ),
    "daily limit told": Case(
        named("daily-limit"), 4, "daily Submission allowance", "after 00:00 UTC"
    ),
    "submission not taken": Case(
        answers("CreateCodeSubmission", times=1, effect=False, message="not now"), 4,
        "submission not accepted: not now",
    ),
    "submission answer lost": Case(named("lost-answer", at="CreateCodeSubmission")),
    "scoring fails": Case(
        answers(SCORE, status="ERROR", errorDescription="Notebook Timeout"), 4,
        "submission .* failed: Notebook Timeout", "kagflow history", finally_="refused",
        cause="out of time",
    ),
    "scoring never ends": Case(
        answers(SCORE, status="PENDING"), 5, "submission .* has not ended after", "it waits on"
    ),
}  # fmt: skip


@pytest.fixture(scope="module")
def served(tiny, tmp_path_factory):
    folder = tiny.make_folder(tmp_path_factory.mktemp("tiny"))
    with load("gauntlet/served.py").serve(tmp_path_factory.mktemp("said") / "store") as one:
        facts = tiny.make_facts(slug=SLUG, rerun="none", daily_submissions=10**6)
        facts = replace(facts, task=replace(facts.task, slug=SLUG))
        one.store.add_competition(facts, folder)
        settings_file.change(one.store.path, dataset_ready_s=0.0, gpu_slots=10**6)
        yield one


class Sender:
    """One account's pack, kernel and records."""

    def __init__(self, served, folder, clock):
        self.served, self.name = served, f"said{abs(hash(folder)) % 10**9}"
        url = served.user_url(self.name)
        self.remote = Remote("local", url=url, state=folder / "state", sleep=clock.sleep)
        self.records = Records(folder / "records")
        pack = roads.make_pack(folder / "packs")
        kernel = roads.make_kernel(folder / "kernel", roads.QUICK, account=self.name, slug=SLUG)
        self.wish = SubmitRequest("tiny", SLUG, pack, kernel, 60, facts=roads.FACTS)
        self.clock = clock

    def plan(self):
        return make_plan(self.wish, self.remote, self.records)

    def submit(self):
        return execute(self.plan(), self.remote, self.records)

    def rows(self):
        return self.records.select(SubmissionRow)

    def counts(self):
        def count(sql):
            row = self.served.store.row(f"SELECT COUNT(*) AS n FROM {sql}", (self.name,))
            return row["n"]

        return (
            count("dataset_version v JOIN dataset d ON d.id = v.dataset WHERE owner = ?"),
            count("kernel_version v JOIN kernel k ON k.id = v.kernel WHERE owner = ?"),
            count("submission WHERE user = ?"),
        )


@pytest.fixture
def sender(served, tmp_path, monkeypatch):
    yield Sender(served, tmp_path, load("gauntlet/test_http_faults.py").sped_up(monkeypatch))
    served.plan.set(())


@pytest.mark.parametrize("name", CASES)
def test_submit_waits_or_stops_as_kaggle_says(sender, name) -> None:
    case = CASES[name]
    plan = sender.plan()
    sender.served.plan.set(case.said)
    if case.code == 0:
        assert execute(plan, sender.remote, sender.records).row.status == "scored"
    else:
        with pytest.raises(KagflowError, match=case.words) as caught:
            execute(plan, sender.remote, sender.records)
        assert caught.value.exit_code == case.code
        assert case.way in caught.value.hint
        assert sender.rows()[0].cause == case.cause
    assert {"lost", "drop", "answer", "status"} & {do for _, do in sender.served.plan.happened}
    sender.served.plan.set(())
    if case.finally_ == "refused":
        with pytest.raises(RefusedError, match="submitted before and failed"):
            sender.submit()
    else:
        assert sender.submit().row.status == "scored"
    assert sender.counts() == (case.versions, case.pushes, 1)
    noted = [(row.kind, row.ended is not None) for row in sender.records.select(HoursRow)]
    assert noted == [("kernel", True)] * case.pushes + [("submission", True)]


def test_a_quota_that_is_used_up_after_the_plan_stops_the_push(sender) -> None:
    """Kaggle's own refusal, by its own count: what the plan saw as left, another run took."""
    plan, store = sender.plan(), sender.served.store
    settings_file.change(store.path, gpu_hours=0.0)
    try:
        with pytest.raises(KagflowError, match="Maximum weekly GPU quota") as caught:
            execute(plan, sender.remote, sender.records)
    finally:
        settings_file.change(store.path, gpu_hours=30.0)
    assert (caught.value.exit_code, sender.counts()) == (4, (2, 0, 0))
    assert "kagflow quota says when the hours renew" in caught.value.hint
    assert sender.submit().row.status == "scored"
    assert sender.counts() == (2, 1, 1)


def test_a_slot_that_others_hold_is_waited_for(sender) -> None:
    """As many runs as the account may have are there; a look later one has ended."""
    store = sender.served.store
    settings_file.change(store.path, gpu_slots=0)
    slept = sender.clock.sleep

    def free(seconds: float) -> None:
        settings_file.change(store.path, gpu_slots=10**6)
        slept(seconds)

    sender.remote.transport.sleep = free
    assert sender.submit().row.status == "scored"
    assert sender.counts() == (2, 1, 1)


def test_a_dataset_version_that_failed_is_sent_again(sender) -> None:
    """The versions themselves are broken, the first and its successor: their marks find nothing."""
    store = sender.served.store
    for _ in range(2):
        sender.served.plan.set(named("dataset-failed"))
        with pytest.raises(KagflowError, match="FAILED"):
            sender.submit()
        sender.served.plan.set(())
        # Kaggle said FAILED at once: what it still processes would become ready afterwards.
        ours = "dataset IN (SELECT id FROM dataset WHERE owner = ?)"
        while store.row(
            f"SELECT * FROM dataset_version WHERE status = 'BLOBS_RECEIVED' AND {ours}",
            (sender.name,),
        ):
            time.sleep(0.01)
        store.execute(f"UPDATE dataset_version SET status = 'FAILED' WHERE {ours}", (sender.name,))
    row = sender.submit().row
    assert [one.rpartition("/")[2] for one in row.datasets] == ["3", "1"]
    assert sender.counts() == (4, 1, 1)


def test_hours_of_a_push_that_was_never_noted_are_found(sender, monkeypatch) -> None:
    """A kill between the push and its note, and nobody submits that pack again."""
    from kagflow.ship.refresh import refresh

    with monkeypatch.context() as patched:
        patched.setattr(Records, "done", roads.forgets("kernel"))
        with pytest.raises(KeyboardInterrupt):
            sender.submit()
    first = sender.wish
    other = roads.make_pack(first.pack.parent, b"other weights")
    sender.wish = replace(first, pack=other)
    assert sender.submit().row.kernel_version == 2
    (found,) = refresh(sender.records, sender.remote, profile="local")
    assert (found.kernel_version, found.status) == (1, "ran")
    kernel = [row for row in sender.records.select(HoursRow) if row.kind == "kernel"]
    assert sorted(row.subject[-2:] for row in kernel) == ["v1", "v2"]
    assert all(row.ended for row in kernel)
    # Its pack submitted after all: the run is there, between other versions.
    sender.wish = first
    assert sender.submit().row.kernel_version == 1
    assert sender.counts()[1:] == (2, 2)
    assert len([row for row in sender.records.select(HoursRow) if row.kind == "kernel"]) == 2


def test_a_submission_whose_answer_was_never_noted_is_found(sender, monkeypatch) -> None:
    from kagflow.ship.refresh import refresh

    with monkeypatch.context() as patched:
        patched.setattr(Records, "done", roads.forgets("submit"))
        with pytest.raises(KeyboardInterrupt):
            sender.submit()
    (found,) = refresh(sender.records, sender.remote, profile="local")
    assert found.status == "scored"
    assert sender.submit().already
    assert sender.counts() == (2, 1, 1)


def test_what_a_killed_try_did_may_take_a_while_to_show(sender, monkeypatch) -> None:
    """The listing lags behind: two looks see nothing yet, and nothing is submitted twice."""
    with monkeypatch.context() as patched:
        patched.setattr(Records, "done", roads.forgets("submit"))
        with pytest.raises(KeyboardInterrupt):
            sender.submit()
    sender.served.plan.set(
        [Fault("ListSubmissions", "answer", 2, fields={"submissions": []}, effect=False)]
    )
    assert sender.submit().row.status == "scored"
    assert sender.counts() == (2, 1, 1)

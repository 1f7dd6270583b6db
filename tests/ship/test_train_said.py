"""What a training on Kaggle does about everything that Kaggle says of a dataset, a push and a run.

One table: what is said, how `train` ends (its exit code, its words, the way on), that --attach then
begins nothing, and that the same command finishes, each step of the chain in one session.
"""

from __future__ import annotations

import hashlib
import importlib.util
import time
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from kagflow.errors import KagflowError
from kagflow.rehearse import settings as settings_file
from kagflow.rehearse.faults import NAMED, Fault
from kagflow.ship import train_chain
from kagflow.ship.records import HoursRow, StepRow
from kagflow.ship.remote import Remote

STATUS, OUTPUT = "GetKernelSessionStatus", "ListKernelSessionOutput"


def load(name):
    path = Path(__file__).parents[1] / name
    spec = importlib.util.spec_from_file_location(f"said_{path.stem}", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


chains = load("ship/test_train_chain.py")
# Two sessions make a chain.
chains.GOAL = 4


@dataclass(frozen=True)
class Case:
    """What is said; `code` 0 is success, else the same command finishes without it.

    `sessions` are those of all commands together: two make the training, one more stands for
    each that brought nothing back. What submit's table holds as well is `slow`.
    """

    said: tuple[Fault, ...]
    code: int = 0
    words: str = ""
    way: str = ""
    sessions: int = 2
    slow: bool = False


def answers(at, *, times=0, skip=0, effect=True, **fields):
    return (Fault(at, "answer", times, skip, fields=fields, effect=effect),)


def named(name, **changes):
    return (replace(NAMED[name], **changes),)


CASES = {
    # -- the datasets
    "dataset takes its time": Case(named("dataset-slow"), slow=True),
    "dataset processed again": Case(named("dataset-again"), slow=True),
    "dataset without a state": Case(named("dataset-nothing"), slow=True),
    "dataset never ready": Case(
        named("dataset-slow", times=0), 5, "is not ready after 60 minutes", "it waits on",
        slow=True,
    ),
    "dataset failed": Case(
        named("dataset-failed"), 4, "could not process dataset .*: FAILED", "the same command again"
    ),
    "dataset answer lost": Case(named("lost-answer", at="CreateDataset", times=2)),
    "upload broken off": Case(named("cut-upload", times=2), slow=True),
    # -- the push
    "no session free for a while": Case(named("no-slot", times=3)),
    "no session free": Case(
        named("no-slot", times=0), 4, "Maximum batch GPU session count", "a running kernel ends"
    ),
    "weekly quota reached": Case(
        named("no-quota", times=0), 4, "Maximum weekly GPU quota of 30.00 hours", "kagflow quota"
    ),
    "weekly quota reached between two sessions": Case(
        named("no-quota", times=0, skip=1), 4, "Maximum weekly GPU quota", "kagflow quota"
    ),
    "input not found": Case(
        named("invalid-source"), 4, "without some of its inputs", "stop it on its page"
    ),
    "push without a version": Case(named("no-version"), 4, "answered without a version"),
    "push answer lost": Case(named("lost-answer", at="SaveKernel", skip=1)),
    "push answer lost, then no answers": Case(
        named("lost-answer", at="SaveKernel") + named("dropped", at="GetKernel", skip=2, times=99),
        5, "no answer", "run the same command again",
    ),
    # -- the run
    "kernel fails": Case(
        answers(STATUS, status="ERROR", failureMessage="Your notebook ran out of memory"),
        4, "kernel .* version 1 failed: Your notebook ran out[^$]*likely: out of memory",
        "the same command goes on", sessions=3,
    ),
    "kernel cancelled": Case(
        named("kernel-cancelled"), 4, "kernel .* version 1 failed: CANCEL_ACK[^$]*out of time",
        "the same command goes on", sessions=3,
    ),
    "kernel saved and never run": Case(
        answers(STATUS, status="NEW_SCRIPT"), 4, "kernel .* version 1 failed: NEW_SCRIPT",
        "the same command goes on", sessions=3,
    ),
    "kernel stuck": Case(
        named("kernel-stuck"), 5, "kernel .* version 1 has not ended after", "it waits on"
    ),
    "kernel in a state unheard of": Case(named("kernel-unheard-of", times=3), slow=True),
    "kernel being cancelled": Case(answers(STATUS, times=2, status="CANCEL_REQUESTED"), slow=True),
    "status answers lost for long": Case(
        named("dropped", at=STATUS, times=99), 5, "no answer", "run the same command again"
    ),
    "log cut off": Case(
        named("kernel-stuck", times=6) + named("dropped", at="log", skip=1, times=2)
    ),
    # -- what comes back
    "outputs listed late": Case(answers(OUTPUT, times=1, skip=1, files=[])),
    "outputs never listed": Case(answers(OUTPUT, times=3, files=[]), sessions=3),
    "outputs altered on the way": Case(named("garbage-download", times=2, byte=1)),
    "outputs listed no more": Case(
        named("dropped", at=OUTPUT, skip=1, times=99), 5, "no answer", "run the same command again"
    ),
    "download broken off": Case(
        named("dropped", at="storage", times=99), 5, "download broke off", "it resumes"
    ),
}  # fmt: skip


@pytest.fixture(scope="module")
def served(tiny, tmp_path_factory):
    folder = tiny.make_folder(tmp_path_factory.mktemp("tiny"))
    root = tmp_path_factory.mktemp("said") / "store"
    with load("gauntlet/served.py").serve(root, chains.count) as one:
        one.store.add_competition(tiny.make_facts(), folder)
        settings_file.change(one.store.path, dataset_ready_s=0.0, gpu_slots=10**6)
        yield one


@pytest.fixture
def away(served, tmp_path, monkeypatch):
    """One account's training; what is slept is not waited for."""
    clock = load("gauntlet/test_http_faults.py").sped_up(monkeypatch)
    monkeypatch.setattr(train_chain, "QUEUE_S", 600.0)
    user = f"said{int(hashlib.sha256(str(tmp_path).encode()).hexdigest()[:8], 16)}"

    def make() -> Remote:
        url = served.user_url(user)
        return Remote("local", url=url, state=tmp_path / "state", sleep=clock.sleep)

    one = chains.Away(make, tmp_path, monkeypatch)
    one.user = user
    yield one
    served.plan.set(())


def counts(served, user):
    def count(sql):
        return served.store.row(f"SELECT COUNT(*) AS n FROM {sql}", (user,))["n"]

    return (
        count("dataset_version v JOIN dataset d ON d.id = v.dataset WHERE owner = ?"),
        count("kernel_version v JOIN kernel k ON k.id = v.kernel WHERE owner = ?"),
    )


@pytest.mark.parametrize(
    "name", [pytest.param(one, marks=[pytest.mark.slow] * CASES[one].slow) for one in CASES]
)
def test_train_waits_or_stops_as_kaggle_says(served, away, name) -> None:
    case = CASES[name]
    served.plan.set(case.said)
    if case.code:
        with pytest.raises(KagflowError, match=case.words) as caught:
            away.run()
        assert caught.value.exit_code == case.code
        assert case.way in caught.value.hint
    else:
        away.run()
    said = [one for one in away.notes if one.startswith("from step")]
    assert len(set(said)) == len(said)
    assert served.plan.happened
    served.plan.set(())
    pushed = counts(served, away.user)[1]
    attached = away.run(attach=True)
    assert counts(served, away.user)[1] == pushed
    # Whatever runs there is found, noted or not.
    assert len(attached.sessions) == pushed
    assert away.run().sessions[-1].finished
    assert away.made == chains.unbroken()
    assert counts(served, away.user) == (2, case.sessions)
    assert [row.ended is not None for row in away.records.select(HoursRow)] == (
        [True] * case.sessions
    )
    assert all(row.state == "done" for row in away.records.select(StepRow))


def test_a_dataset_version_that_failed_is_sent_again(served, away) -> None:
    """The version itself is broken: its mark finds nothing any more."""
    served.plan.set(named("dataset-failed"))
    with pytest.raises(KagflowError, match="FAILED"):
        away.run()
    served.plan.set(())
    # Kaggle said FAILED at once: what it still processes would become ready afterwards.
    ours = "dataset IN (SELECT id FROM dataset WHERE owner = ?)"
    waiting = f"SELECT * FROM dataset_version WHERE status = 'BLOBS_RECEIVED' AND {ours}"
    while served.store.row(waiting, (away.user,)):
        time.sleep(0.01)
    broken = f"UPDATE dataset_version SET status = 'FAILED' WHERE {ours}"
    served.store.execute(broken, (away.user,))
    away.run()
    assert away.made == chains.unbroken()
    assert counts(served, away.user) == (3, 2)
    sent = [row.result for row in away.records.select(StepRow) if row.name.startswith("dataset")]
    assert [one["version"] for one in sent] == [2, 1, 2, 1]

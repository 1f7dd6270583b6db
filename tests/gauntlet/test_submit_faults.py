"""Scripted faults over dataset version, push, status and submit: an end, typed, nothing doubled.

Half of the packs follow an earlier one, so that datasets and kernel get a version. What the faults
say of runs and scorings is often not so: whatever kagflow made of it, each run that was billed is
in the ledger once in the end.
"""

from __future__ import annotations

import importlib.util
import random
import re
from collections import Counter
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pytest

from kagflow.errors import KagflowError, NetworkError, RefusedError, RemoteError
from kagflow.rehearse import datasets
from kagflow.rehearse.faults import NAMED, Fault
from kagflow.ship import remote_datasets, remote_transport, submit
from kagflow.ship.records import HoursRow, Records, SubmissionRow
from kagflow.ship.refresh import refresh
from kagflow.ship.remote import Remote

SHARE, TOTAL = 10, 1000


def load(name):
    path = Path(__file__).with_name(name)
    spec = importlib.util.spec_from_file_location(f"submits_{path.stem}", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


http = load("test_http_faults.py")
served = http.served
STATUS, SCORE = "GetKernelSessionStatus", "GetSubmission"
# By what a submission meets in its order: what Kaggle says, and for how long it goes on saying it.
SAID = {
    "dataset": [
        *(NAMED[f"dataset-{name}"] for name in ("slow", "again", "failed", "nothing")),
        Fault("GetDatasetStatus", "answer", fields={"status": "DELETED"}),
        Fault("CreateDataset*", "answer", fields={"error": "busy"}, effect=False),
        Fault("CreateDataset*", "status", status=403, text="still processing"),
    ],
    "push": [
        *(NAMED[name] for name in ("invalid-source", "no-version", "no-slot", "no-quota")),
        Fault("SaveKernel", "answer", fields={"error": "Notebook not found"}, effect=False),
    ],
    "status": [
        *(NAMED[f"kernel-{name}"] for name in ("stuck", "cancelled", "unheard-of")),
        NAMED["kernel-other-version"],
        *(
            Fault(STATUS, "answer", fields={"status": name, "failureMessage": "said so"})
            for name in ("ERROR", "NEW_SCRIPT", "QUEUED", "CANCEL_REQUESTED")
        ),
    ],
    "submit": [
        NAMED["daily-limit"],
        Fault("CreateCodeSubmission", "answer", fields={"message": "no"}, effect=False),
        Fault("GetSubmissionLimits", "answer", fields={"numAllowedNow": 0}),
        Fault(SCORE, "answer", fields={"status": "ERROR", "errorDescription": "Notebook Timeout"}),
        Fault(SCORE, "answer", fields={"status": "PENDING", "publicScore": ""}),
        Fault(SCORE, "answer", effect=False),
    ],
}
WIRE = {
    "dataset": ("upload", "StartBlobUpload", "CreateDataset*", "GetDataset*", "ListDatasetFiles"),
    "push": ("SaveKernel", "SaveKernel", "GetKernel"),
    "status": (STATUS, "log", "ListKernelSessionOutput"),
    "submit": ("CreateCodeSubmission", "CreateCodeSubmission", "ListSubmissions", SCORE),
}


def script(rng) -> list[Fault]:
    """Return one to five faults: what Kaggle says, and what becomes of the answers on the wire."""
    found = []
    for _ in range(rng.randint(1, 5)):
        stage = rng.choice(list(SAID))
        if rng.random() < 0.5:
            fault = rng.choice(SAID[stage])
            times = rng.choice((1, 1, 2, 5, 0))
            found.append(replace(fault, times=times, skip=rng.choice((0, 0, 1))))
        else:
            found.append(http._fault(rng, rng.choice(WIRE[stage])))
    return found


# What waits, and for how many seconds at most; beside it only the repeats of one last call.
STATED = (
    (remote_datasets.DatasetCalls, "_until", 3600.0),
    (submit, "push_when_free", 600.0),
    (submit, "follow_kernel", 660.0),
    (submit, "poll", 600.0),
)


def hold(monkeypatch, clock):
    """Let every wait of a submission end in Hung beyond its stated limit."""
    for owner, name, stated in STATED:
        monkeypatch.setattr(owner, name, within(clock, getattr(owner, name), stated))


def within(clock, wait, stated):
    def held(*args, **kwargs):
        with clock.limit(stated + remote_transport.BUDGET):
            return wait(*args, **kwargs)

    return held


class Shipping(http.Submitting):
    """One user's pack on its way, often after an earlier one; `met` is whether a fault happened."""

    met = False

    def __init__(self, rng, served, make_remote, folder, roads):
        super().__init__(rng, served, make_remote, folder, roads)
        self.versions, self.submissions = 2, 1
        if rng.random() < 0.5:
            self._before()
            code = rng.choice((b"code", b"other code"))
            weights = rng.randbytes(rng.randint(1, 5000))
            self.pack = roads.make_pack(folder / "packs", weights, code=code)
            self.versions += 1 + (code != b"code")
            self.submissions, self.allowed = 2, 2

    def _before(self):
        for _ in range(5):
            # Without any fault a busy machine may still answer later than the shortened limits.
            with suppress(NetworkError):
                return super().run()
        raise AssertionError("no submission even without faults")

    def run(self):
        try:
            super().run()
        finally:
            self.met = self.met or bool(self.served.plan.happened)

    def wrong(self, outcome, *, last):
        counts = self._counts()
        most = {"versions": self.versions, "pushes": self.allowed, "submissions": self.submissions}
        if any(counts[name] > most[name] for name in counts):
            return f"doubled: {counts}, not {most}"
        if isinstance(outcome, KagflowError):
            if outcome.exit_code not in range(2, 9):
                return f"ended with {outcome.exit_code}"
            if not outcome.hint and isinstance(outcome, NetworkError):
                return "no word of what to do"
        # After a kernel that failed, as far as was said, the same command is a new attempt.
        if isinstance(outcome, RemoteError) and re.match("kernel .* failed: ", outcome.message):
            self.allowed += 1
        if isinstance(outcome, RefusedError):
            # Only a submission that Kaggle took and could not score is not made again unasked.
            rows = Records(self.folder / "records").select(SubmissionRow, status="failed")
            if not any(row.ref for row in rows):
                return "refused, though no submission failed"
            self.refused = True
        if outcome == "success" and (
            counts["versions"] != self.versions or counts["submissions"] != self.submissions
        ):
            return f"missing: {counts}"
        if last and outcome != "success" and not self.refused:
            return "did not converge"
        if not (last or outcome == "success"):
            return None
        return self._torn(outcome) or self._hours()

    def _torn(self, outcome):
        for part in ("env", "weights") if outcome == "success" else ():
            version = datasets.find(self.served.store, self.account, f"kagflow-tiny-{part}")
            for path in (self.pack / part).iterdir():
                if (version.tree / path.name).read_bytes() != path.read_bytes():
                    return f"wrong bytes in {path.name}"
        return None

    def _hours(self):
        """Say which run or scoring is not in the ledger once and closed, after a look at all."""
        self.served.plan.set(())
        records = Records(self.folder / "records")
        refresh(records, self.make_remote(), profile="local")
        rows = self.served.store.rows
        runs = rows(
            "SELECT v.number, k.slug FROM session s JOIN kernel_version v ON v.id = s.version "
            "JOIN kernel k ON k.id = v.kernel WHERE k.owner = ? AND s.kind = 'save'",
            (self.account,),
        )
        wanted = Counter(("kernel", f"{self.account}/{run[1]}/v{run[0]}") for run in runs)
        sent = rows("SELECT ref FROM submission WHERE user = ?", (self.account,))
        wanted += Counter(("submission", str(one["ref"])) for one in sent)
        noted = records.select(HoursRow)
        there = Counter((row.kind, row.subject) for row in noted)
        if there != wanted:
            return f"billed {wanted}, noted {there}"
        left = [row.subject for row in noted if row.ended is None]
        return f"never closed: {left}" if left else None


@pytest.fixture
def play(served, tmp_path, monkeypatch):
    """Play one numbered script; return what went wrong, None for nothing."""
    clock = http.sped_up(monkeypatch)
    hold(monkeypatch, clock)
    roads = http.load("ship/test_submit.py")

    def once(rng, user):
        url, folder = served.user_url(user), tmp_path / user
        served.plan.set(())

        def make_remote():
            return Remote("local", url=url, state=folder / "state", sleep=clock.sleep)

        game = Shipping(rng, served, make_remote, folder, roads)
        return http.sequence(game, served, script(rng), clock), game.met

    def one(number):
        rng = random.Random(f"submit {number}")
        # A script whose faults no request met is no fault sequence: another one takes its place.
        for again in range(10):
            wrong, met = once(rng, f"ship{number}-{again}")
            if wrong or met:
                return wrong
        return "no fault happened"

    yield one
    served.plan.set(())


def test_submit_fault_scripts_share(tally, play):
    tally.share("submit fault scripts", play, range(SHARE))


@pytest.mark.gauntlet
def test_submit_fault_scripts(tally, play):
    note = (
        "dataset version, push, status, submit, at least one fault met in each; doubled, untyped, "
        "past a wait's limit, or hours lost"
    )
    tally.full("submit fault scripts", play, TOTAL, note=note)

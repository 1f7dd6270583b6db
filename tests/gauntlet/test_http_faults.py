"""Random sequences of HTTP faults over fetch and submit: right bytes or a typed error, no doubles.

After each sequence the same command runs again without faults, and must find what is there.
"""

from __future__ import annotations

import importlib.util
import random
import re
import time
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest

from kagflow.errors import KagflowError, RefusedError, RemoteError
from kagflow.rehearse import app, blobs
from kagflow.rehearse import settings as settings_file
from kagflow.rehearse.faults import NAMED, SHAPES, Fault
from kagflow.ship import remote_datasets, remote_transport, submit, waits
from kagflow.ship.fetch import fetch
from kagflow.ship.records import Records
from kagflow.ship.remote import Remote
from kagflow.ship.submit import SubmitRequest, execute, make_plan

SHARE, TOTAL = 40, 1000
# Seconds that one sequence may wait in all: the longest wait, for a dataset, in each of its runs.
LONGEST = 3 * 3700.0
REAL = 240.0  # seconds of real time for one run of the command, which takes about one
SLUG, SAVED = "tiny-squares", "tiny-saved"
FETCH = ("DownloadDataFiles", "GetCompetition", "storage", "storage", "storage")
READS = (
    "GetDataset",
    "GetDatasetStatus",
    "ListDatasetFiles",
    "GetKernel",
    "ListKernels",
    "GetKernelSessionStatus",
    "ListKernelSessionOutput",
    "log",
    "ListSubmissions",
    "GetSubmission",
    "GetSubmissionLimits",
    "GetCompetition",
    "GetAcceleratorQuotaStatistics",
)
# What changes something is what must not be doubled: it fails more often.
WRITES = ("upload", "CreateDataset", "SaveKernel", "CreateCodeSubmission") * 3
STATUSES = (400, 401, 403, 404, 408, 429, 429, 500, 502, 503, 503)
SPECIAL = {
    name: fault for name, fault in NAMED.items() if fault.at != "*" and fault.at != "storage"
}
WAITS = (None, None, 0, 3, "date+3", "date-3", 100_000)


def load(name):
    path = Path(__file__).parents[1] / name
    spec = importlib.util.spec_from_file_location(f"gauntlet_{path.stem}", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


patience = load("gauntlet/patience.py")


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    tiny = load("rehearse/tiny.py")
    folder = tiny.make_folder(tmp_path_factory.mktemp("tiny"), train=8)
    with load("gauntlet/served.py").serve(tmp_path_factory.mktemp("served") / "store") as one:
        for slug, rerun in ((SLUG, "hidden"), (SAVED, "none")):
            facts = tiny.make_facts(slug=slug, rerun=rerun, daily_submissions=100_000)
            facts = replace(facts, task=replace(facts.task, slug=slug))
            one.store.add_competition(facts, folder)
        settings_file.change(one.store.path, dataset_ready_s=0.01, gpu_slots=10**6)
        yield one


@pytest.fixture
def play(served, tmp_path, monkeypatch):
    """Play one numbered sequence; return what went wrong, None for nothing."""
    clock = sped_up(monkeypatch)
    roads = load("ship/test_submit.py")

    def one(number):
        rng = random.Random(f"http {number}")
        url = served.user_url(f"user{number}")
        folder = tmp_path / str(number)

        def make_remote():
            return Remote("local", url=url, state=folder / "state", sleep=clock.sleep)

        job = Fetching if rng.random() < 0.3 else Submitting
        game = job(rng, served, make_remote, folder, roads)
        return sequence(game, served, draw(rng, game.endpoints), clock)

    yield one
    served.plan.set(())


def sped_up(monkeypatch):
    """Return the clock by which everybody waits from now on; limits stay, but are sooner over."""
    clock = patience.Clock()
    patched = SimpleNamespace(monotonic=clock.monotonic, time=time.time)
    for module in (waits, remote_datasets):
        monkeypatch.setattr(module, "time", patched)
    monkeypatch.setattr(remote_transport, "TIMEOUT", (1, 0.15))
    monkeypatch.setitem(waits.LONGEST_WAIT, "local", 60.0)
    monkeypatch.setattr(submit, "QUEUE_S", 600.0)
    monkeypatch.setattr(submit, "SCORING_S", 600.0)
    # Packs of a few kilobytes still break in the middle.
    monkeypatch.setattr(blobs, "GRANULE", 256)
    monkeypatch.setattr(app, "FOLLOW_SECONDS", 0.01)
    return clock


def sequence(game, served, planned, clock):
    told = f"{type(game).__name__} {[(one.at, one.do, one.status) for one in planned]}"
    before = clock.slept
    served.plan.set(planned)
    for attempt in ("with faults", "without", "once more"):
        try:
            with clock.limit(before + LONGEST - clock.slept), patience.alarmed(REAL):
                game.run()
            outcome = "success"
        except KagflowError as error:
            outcome = error
        except (Exception, patience.Hung) as error:  # noqa: BLE001 -- that is what is looked for
            return f"{told} {attempt}: {type(error).__name__}: {error}"
        served.plan.set(())
        wrong = game.wrong(outcome, last=attempt == "once more")
        if wrong:
            return f"{told} {attempt}: {outcome!r}: {wrong}"
        if outcome == "success" and attempt == "without":
            break
    return None


def draw(rng, endpoints):
    """Return one to five faults, most of them once, some until the client gives up."""
    return [_fault(rng, rng.choice(endpoints)) for _ in range(rng.randint(1, 5))]


def _fault(rng, at):
    special = [fault for fault in SPECIAL.values() if fault.at == at]
    if special and rng.random() < 0.3:
        return rng.choice(special)
    kinds = ["status", "status", "status", "drop", "lost", "lost", "hang", "slow", "cut", "page"]
    if at == "storage":
        kinds += ["cut", "cut", "garbage", "whole", "shifted", "expired"]
    if at == "upload":
        kinds += ["cut", "cut", "expired"]
    do = rng.choice(kinds)
    return Fault(
        at,
        do,
        times=rng.choice((1, 1, 1, 2, 3, 9)),
        skip=rng.choice((0, 0, 0, 1, 2)),
        ranged=do in ("whole", "shifted"),
        status=rng.choice(STATUSES),
        shape=rng.choice(SHAPES),
        retry_after=rng.choice(WAITS),
        byte=rng.choice((0, 1, 100, 700, 2000, 5000)),
        seconds=0.03 if do == "slow" else 3600.0,
    )


class Fetching:
    """One user's fetch of the competition's data."""

    endpoints = FETCH

    def __init__(self, rng, served, make_remote, folder, roads):
        self.make_remote, self.target = make_remote, folder / "data" / "tiny"
        self.tree = served.store.save_tree(SLUG)
        self.spec = served.store.competition(SLUG).task
        settings_file.change(served.store.path, hash_sent=rng.random() < 0.5)

    def run(self):
        fetch(self.make_remote(), self.spec, self.target)

    def wrong(self, outcome, *, last):
        if self.target.exists():
            for path in filter(Path.is_file, self.tree.rglob("*")):
                copy = self.target / path.relative_to(self.tree)
                if not copy.is_file() or copy.read_bytes() != path.read_bytes():
                    return f"wrong bytes in {copy.name}"
        elif outcome == "success":
            return "nothing is there"
        return "did not converge" if last and outcome != "success" else None


class Submitting:
    """One user's pack on its way: dataset, kernel, submission."""

    endpoints = READS + WRITES

    def __init__(self, rng, served, make_remote, folder, roads):
        self.served, self.make_remote, self.folder = served, make_remote, folder
        self.slug = rng.choice((SLUG, SAVED))
        self.pack = roads.make_pack(folder / "packs", rng.randbytes(rng.randint(1, 5000)))
        self.account = make_remote().account()
        self.kernel = roads.make_kernel(
            folder / "kernel", roads.QUICK, account=self.account, slug=self.slug
        )
        self.refused, self.allowed = False, 1

    def run(self):
        records, remote = Records(self.folder / "records"), self.make_remote()
        wish = SubmitRequest("tiny", self.slug, self.pack, self.kernel, 60)
        execute(make_plan(wish, remote, records), remote, records)

    def wrong(self, outcome, *, last):
        counts = self._counts()
        allowed = {"versions": 2, "pushes": self.allowed, "submissions": 1}
        if any(counts[name] > allowed[name] for name in counts):
            return f"doubled: {counts}"
        # After a kernel that failed, the same command is a new attempt.
        if isinstance(outcome, RemoteError) and re.match("kernel .* failed: ", outcome.message):
            self.allowed += 1
        for part in ("env", "weights"):
            name = f"kagflow-tiny-{part}"
            tree = self.served.store.path / "datasets" / self.account / name / "1"
            for path in (self.pack / part).iterdir() if tree.exists() else ():
                if (tree / path.name).read_bytes() != path.read_bytes():
                    return f"wrong bytes in {path.name}"
        # A submission that failed is not made again unasked.
        self.refused = self.refused or isinstance(outcome, RefusedError)
        if outcome == "success" and (not all(counts.values()) or counts["versions"] < 2):
            return f"missing: {counts}"
        if last and outcome != "success" and not self.refused:
            return "did not converge"
        return None

    def _counts(self):
        def count(sql):
            return self.served.store.row(f"SELECT COUNT(*) AS n FROM {sql}", (self.account,))["n"]

        return {
            "versions": count("dataset_version v JOIN dataset d ON d.id = dataset WHERE owner = ?"),
            "pushes": count("kernel_version v JOIN kernel k ON k.id = kernel WHERE owner = ?"),
            "submissions": count("submission WHERE user = ?"),
        }


def test_http_faults_share(tally, play):
    tally.share("HTTP fault sequences", play, range(SHARE))


@pytest.mark.gauntlet
def test_http_faults(tally, play):
    tally.full("HTTP fault sequences", play, TOTAL)

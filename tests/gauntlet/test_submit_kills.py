"""kill -9 anywhere in pack and submit: one submission, every billed run in the ledger, an end.

The kernel is numpy alone and runs in the sandbox, so that a round takes a second or two.
"""

from __future__ import annotations

import importlib.util
import json
import os
import random
import signal
import sqlite3
import subprocess
import sys
import time
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest

from kagflow.rehearse import sandbox, server
from kagflow.rehearse import settings as settings_file
from kagflow.rehearse.store import Store
from kagflow.ship.records import FILE, HoursRow, Records, SubmissionRow

CHILD = Path(__file__).with_name("submit_child.py")
SLUGS = {"tiny-squares": "hidden", "tiny-saved": "none"}
KERNEL = "kagflow-tiny"
FALLS = "print('about to fall', flush=True)\nraise SystemExit(3)\n"


def load(name):
    path = Path(__file__).parents[1] / name
    spec = importlib.util.spec_from_file_location(f"killed_{path.stem}", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


class Field:
    """A served competition with and without a rerun, and a process that submits on request.

    A `url` names a server of `store` that runs already; else one is started, with a sandbox.
    """

    def __init__(self, base: Path, store: Store, url: str = "") -> None:
        self.base, self.store, self.own = base, store, not url
        self.tiny, self.roads = load("rehearse/tiny.py"), load("ship/test_submit.py")
        data = self.tiny.make_folder(base / "made", private=2, public=2)
        for slug, rerun in SLUGS.items():
            facts = self.tiny.make_facts(slug=slug, rerun=rerun, daily_submissions=10**6)
            task = replace(facts.task, slug=slug)
            self.store.add_competition(replace(facts, task=task), data)
        settings_file.change(
            self.store.path, dataset_ready_s=0.05, gpu_slots=10**6, submission_listed_s=0.05
        )
        url = url or server.ensure(self.store.path).url
        self.noise = (base / "noise").open("w+")
        environment = {
            **os.environ,
            "OMP_NUM_THREADS": "1",
            "KAGFLOW_CACHE": str(base / "cache"),
            "KAGFLOW_OFFLINE": "1",
            "PYTHONDONTWRITEBYTECODE": "1",
        }
        self.process = subprocess.Popen(
            [sys.executable, str(CHILD), url],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self.noise,
            text=True,
            env=environment,
            cwd=Path(__file__).parents[2],
        )
        assert self.hear() == "ready", self.said()
        began = time.monotonic()
        user = User(self, "golden", "tiny-squares")
        assert user.submit() == 0, self.said()
        self.boundaries = json.loads((user.folder / "boundaries").read_text())
        self.seconds = time.monotonic() - began
        self.scores = user.rows()[0].public, user.rows()[0].private

    def close(self) -> None:
        self.process.stdin.close()
        self.process.wait(10)
        if self.own:
            server.stop(self.store.path)

    def hear(self):
        return json.loads(self.process.stdout.readline())

    def play(self, **order):
        self.process.stdin.write(json.dumps(order) + "\n")
        self.process.stdin.flush()
        return self.hear()

    def said(self) -> str:
        return (self.base / "noise").read_text()[-500:]


class User:
    """One account with a pack, a kernel and records of its own."""

    def __init__(self, field: Field, name: str, slug: str, *, kernel: str | None = None) -> None:
        self.field, self.name, self.slug = field, name, slug
        self.folder = field.base / name
        self.write(kernel or field.tiny.kernel(slug))

    def write(self, text: str) -> None:
        self.field.roads.make_kernel(
            self.folder / "kernel", text, account=self.name, slug=self.slug
        )

    def submit(self, weights: str = "first", **order):
        return self.field.play(
            folder=str(self.folder), user=self.name, slug=self.slug, rerun=SLUGS[self.slug],
            weights=weights, kernel="kernel", **order,
        )  # fmt: skip

    def rows(self) -> list[SubmissionRow]:
        return Records(self.folder / "records").select(SubmissionRow)

    def on_kaggle(self) -> dict[str, list]:
        """Return this account's datasets' versions, runs and submissions."""
        rows, one = self.field.store.rows, (self.name,)
        return {
            "versions": rows(
                "SELECT d.slug, v.number FROM dataset_version v JOIN dataset d ON d.id = v.dataset "
                "WHERE d.owner = ? ORDER BY 1, 2", one,
            ),
            "runs": rows(
                "SELECT s.*, v.number FROM session s JOIN kernel_version v ON v.id = s.version "
                "JOIN kernel k ON k.id = v.kernel WHERE k.owner = ? ORDER BY s.id", one,
            ),
            "submissions": rows("SELECT * FROM submission WHERE user = ? ORDER BY ref", one),
        }  # fmt: skip

    def hours_lost(self) -> str | None:
        """Compare the ledger with what was billed: each run once, with the seconds of its log."""
        there = self.on_kaggle()
        billed = {
            f"{self.name}/{KERNEL}/v{run['number']}": run
            for run in there["runs"]
            if run["kind"] == "save"
        }
        rows = Records(self.folder / "records").select(HoursRow)
        noted = Counter((row.kind, row.subject) for row in rows)
        wanted = Counter(("kernel", subject) for subject in billed)
        wanted += Counter(("submission", str(one["ref"])) for one in there["submissions"])
        if noted != wanted:
            return f"noted {noted}, billed {wanted}"
        for row in rows:
            if row.ended is None or row.seconds is None:
                return f"{row.subject} was never closed"
            if row.kind == "kernel" and row.seconds != self._logged(billed[row.subject]["id"]):
                return f"{row.subject} took {self._logged(billed[row.subject]['id'])}: {row}"
        return None

    def _logged(self, session: int) -> float:
        log = json.loads((self.field.store.path / f"sessions/{session}/log.json").read_text())
        return max(line["time"] for line in log)

    def damaged(self) -> str | None:
        with sqlite3.connect(self.folder / "records" / FILE) as db:
            said = db.execute("PRAGMA integrity_check").fetchone()[0]
        return None if said == "ok" else f"the records are damaged: {said}"


@pytest.fixture(scope="module")
def field(tmp_path_factory):
    if not sandbox.probe_layers():
        pytest.skip("no sandbox layer works on this machine")
    base = tmp_path_factory.mktemp("kills")
    made = Field(base, Store(base / "store"))
    yield made
    made.close()


@pytest.fixture(scope="module")
def quick(tmp_path_factory):
    """The same where kernels end at once: for kills at places, not at times."""
    base = tmp_path_factory.mktemp("boundaries")
    with load("gauntlet/served.py").serve(base / "store") as served:
        made = Field(base, served.store, served.url)
        yield made
        made.close()


# -- killed at random times


def kill(field: Field, number: int) -> str | None:
    """Kill one road at random times, often several in a row, then let it end."""
    try:
        return _kill(field, number)
    except Exception as error:  # noqa: BLE001 - whatever it is, the case has failed
        return f"{type(error).__name__}: {error}"


def _kill(field: Field, number: int) -> str | None:
    rng = random.Random(f"submit {number}")
    user = User(field, f"user{number}", rng.choice(list(SLUGS)))
    falls, changes = rng.random() < 0.15, rng.random() < 0.25
    if falls:
        user.write(FALLS)
    for _ in range(rng.randint(1, 3)):
        user.submit(delay=rng.uniform(0, 1.2 * field.seconds))
    if falls:
        # What fell while nobody looked is told once, and the mended kernel is another attempt.
        status = user.submit()
        if status not in (0, 4):
            return f"the fallen one ended with {status}: {field.said()}"
        user.write(field.tiny.kernel(user.slug))
    weights = "second" if changes else "first"
    status = user.submit(weights)
    if status:
        return f"the rerun ended with {status}: {field.said()}"
    # As `kagflow history` would: what became of a pack that nobody submits any more.
    if user.field.play(folder=str(user.folder), user=user.name, what="refresh"):
        return f"asking what is pending: {field.said()}"
    return _judged(user, weights, changes=changes)


def _judged(user: User, weights: str, *, changes: bool) -> str | None:
    there = user.on_kaggle()
    packs = 2 if changes else 1
    most = {"versions": 1 + packs, "submissions": packs}
    doubled = {name: len(there[name]) for name in most if len(there[name]) > most[name]}
    descriptions = Counter(one["description"] for one in there["submissions"])
    if doubled or any(count > 1 for count in descriptions.values()):
        return f"doubled: {doubled or descriptions}"
    # A kernel that fell is pushed anew by the next try, which is another attempt: one run for each.
    saves = [run["number"] for run in there["runs"] if run["kind"] == "save"]
    pushed = [row.kernel_version for row in user.rows() if row.kernel_version]
    if sorted(saves) != sorted(pushed):
        return f"ran {saves}, attempts know of {pushed}"
    last = user.rows()[-1]
    scores = (last.public, last.private)
    if last.status != "scored" or scores != user.field.scores:
        return f"{last.status} at {scores}, not at {user.field.scores}"
    wrong = user.hours_lost() or user.damaged()
    if wrong:
        return wrong
    again = user.submit(weights), user.on_kaggle()
    same = all(len(again[1][name]) == len(there[name]) for name in there)
    return None if again[0] == 0 and same else f"a further rerun did something: {again[0]}"


def test_a_share_of_kills_of_pack_and_submit(field, tally) -> None:
    tally.share("kills of pack and submit", lambda number: kill(field, number), range(2))


@pytest.mark.gauntlet
@pytest.mark.timeout(7200)
def test_two_hundred_kills_of_pack_and_submit(field, tally) -> None:
    note = (
        "one to three kills each, then a rerun; a submission doubled, a billed run not in the "
        "ledger once, or no end"
    )
    tally.full("kills of pack and submit", lambda number: kill(field, number), 200, note=note)


# -- killed at every boundary


def strike(field: Field, number: int, at: int) -> str | None:
    """Kill a road before or after one call or one change of the records, then let it end."""
    user = User(field, f"struck{number}", "tiny-squares")
    told = f"{at}, {field.boundaries[at]}"
    try:
        if user.submit(die=at) != -signal.SIGKILL:
            return f"{told}: was not killed"
        status = user.submit()
        if status:
            return f"{told}: the rerun ended with {status}: {field.said()}"
        wrong = _judged(user, "first", changes=False)
    except Exception as error:  # noqa: BLE001 - whatever it is, the case has failed
        wrong = f"{type(error).__name__}: {error}"
    return f"{told}: {wrong}" if wrong else None


def test_a_share_of_the_boundaries_of_submit(quick, tally) -> None:
    """Right after each answer that says that something happened, and one anywhere."""
    writes = ("CreateDataset", "SaveKernel", "CreateCodeSubmission")
    chosen = [quick.boundaries.index(f"after {name}") for name in writes]
    chosen.append(random.Random(0).randrange(len(quick.boundaries)))
    name = "boundaries of submit"
    tally.share(name, lambda number: strike(quick, number, chosen[number]), range(len(chosen)))


@pytest.mark.gauntlet
@pytest.mark.timeout(3600)
def test_every_boundary_of_submit(quick, tally) -> None:
    note = "killed before and after every call to Kaggle and every change of the records"
    count = len(quick.boundaries) - 3  # a few looks less where the machine is quick
    tally.full("boundaries of submit", lambda at: strike(quick, at, at), count, note=note)


# -- two at once


def pair(field: Field, number: int) -> str | None:
    """Let two processes pack and submit the same, one a moment later, some without patience."""
    rng = random.Random(f"pair {number}")
    user = User(field, f"pair{number}", rng.choice(list(SLUGS)))
    wait = rng.choice((0.05, 30.0))
    statuses = user.submit(copies=2, wait=wait, later=rng.uniform(0, field.seconds))
    allowed = ([0, 0], [0, 8], [8, 0]) if wait < 1 else ([0, 0],)
    if statuses not in allowed:
        return f"two at once ended with {statuses}: {field.said()}"
    there = user.on_kaggle()
    counts = {name: len(there[name]) for name in there}
    runs = 1 + (SLUGS[user.slug] == "hidden")
    if counts != {"versions": 2, "runs": runs, "submissions": 1}:
        return f"two at once made {counts}"
    return user.hours_lost() or user.damaged()


def test_two_processes_that_submit_at_once_make_one_submission(field, tally) -> None:
    tally.share("pairs of submitting processes", lambda number: pair(field, number), range(2))


@pytest.mark.gauntlet
@pytest.mark.timeout(3600)
def test_a_hundred_pairs_make_a_hundred_submissions(field, tally) -> None:
    note = "the same pack by two processes at once; other than one submission"
    name = "pairs of submitting processes"
    tally.full(name, lambda number: pair(field, number), 100, note=note)

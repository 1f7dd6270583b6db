"""kill -9 anywhere in fetch: nothing half-made is seen, and the rerun always converges (F1)."""

from __future__ import annotations

import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import cv2
import numpy as np
import pytest

from kagflow.rehearse import server
from kagflow.rehearse.facts import CompetitionFacts
from kagflow.rehearse.store import Store
from kagflow.ship.manifest import check_tree, read_manifest
from kagflow.task.spec import TaskSpec
from kagflow.task.survey import survey
from kagflow.task.surveyed import Plan

SPEC = TaskSpec(slug="gauntlet", kind="segmentation", classes=("1", "2"))
CHILD = Path(__file__).with_name("fetch_child.py")
# Every call by which a file is made, changed, named or removed, or made to last.
CALLS = (
    *("openat", "write", "pwrite64", "fsync", "fdatasync", "syncfs", "utimensat", "flock"),
    *("rename", "renameat", "renameat2", "unlink", "unlinkat", "rmdir"),
    *("mkdir", "mkdirat", "chmod", "fchmodat"),
)
FULL = ("openat", "write", "pwrite64", "fsync", "fdatasync", "syncfs", "mkdir")
COUNTED = re.compile(r"^(?:\[pid +\d+\] |\d+ +)?([a-z0-9_]+)\(")


def make_folder(folder: Path, *, big: bool) -> Path:
    """Write {public, hidden, solution.csv}: noise, so that the archive has some size."""
    rng = np.random.default_rng(0)
    height, width = (256, 400) if big else (24, 32)
    rows = ["ImageId,ClassId,EncodedPixels"]
    for place, count in (("public/train_images", 8), ("public/test_images", 2)):
        (folder / place).mkdir(parents=True)
        for number in range(count):
            image = rng.integers(0, 256, (height, width), np.uint8)
            assert cv2.imwrite(str(folder / place / f"{number:02}.png"), image)
            if place.endswith("train_images"):
                rows.append(f"{number:02}.png,{1 + number % 2},1 9")
    (folder / "public/train.csv").write_text("\n".join(rows) + "\n")
    (folder / "public/sample_submission.csv").write_text(rows[0] + "\n")
    (folder / "hidden").mkdir()
    (folder / "hidden/sample_submission.csv").write_text(rows[0] + "\n")
    (folder / "solution.csv").write_text(rows[0] + "\n")
    return folder


class Field:
    """A served competition, a process that fetches it on request, and what a whole fetch is."""

    def __init__(self, base: Path, *, big: bool) -> None:
        self.base = base
        facts = CompetitionFacts(
            slug=SPEC.slug, title="Gauntlet", host="tests", task=SPEC, rerun="none",
            inference_minutes=1.0, memory_gb=1.0, daily_submissions=1, deadline="2100-01-01",
        )  # fmt: skip
        self.store = base / "store"
        Store(self.store).add_competition(facts, make_folder(base / "made", big=big))
        address = server.ensure(self.store).url.replace("http://", "http://gauntlet:local@")
        self.noise = (base / "noise").open("w+")
        words = [sys.executable, str(CHILD), address]
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONDONTWRITEBYTECODE": "1"}
        self.process = subprocess.Popen(
            words,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self.noise,
            text=True,
            env=environment,
            cwd=Path(__file__).parents[2],
        )
        assert self.hear() == "ready"
        began = time.monotonic()
        self.golden = self.settle(base / "golden" / "data", force=False)
        self.seconds = time.monotonic() - began
        again = self.settle(base / "golden" / "data", force=True)
        assert again == self.golden

    def close(self) -> None:
        self.process.stdin.close()
        self.process.wait(10)
        server.stop(self.store)

    def hear(self):
        return json.loads(self.process.stdout.readline())

    def ask(self, **order) -> None:
        usual = {"force": False, "serial": False, "hold": False, "delay": None}
        order = {**usual, **order, "target": str(order["target"])}
        self.process.stdin.write(json.dumps(order) + "\n")
        self.process.stdin.flush()

    def play(self, **order) -> int:
        self.ask(**order)
        return self.hear()

    def settle(self, target: Path, *, force: bool) -> dict[str, bytes]:
        """Fetch to the end and return the tree, with everything that lies beside it."""
        status = self.play(target=target, force=force)
        assert status == 0, f"the rerun ended with {status}: {self.said()}"
        check_tree(target, read_manifest(target), verify=True)
        beside = {path.name for path in target.parent.iterdir()} - {"client"}
        assert beside == {target.name, f".{target.name}.lock"}, beside
        return tree(target)

    def said(self) -> str:
        return (self.base / "noise").read_text()[-500:]

    def fresh(self, number: int) -> Path:
        """Return where to fetch to; every other time, what was fetched before is there."""
        folder = self.base / "target"
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        if number % 2:
            shutil.copytree(self.base / "golden" / "data", folder / "data")
        return folder / "data"

    def judge(self, target: Path, *, had: bool) -> str | None:
        """Say what is wrong after a kill: what is there must be whole, what was there must be."""
        if target.exists():
            check_tree(target, read_manifest(target), verify=True)
        elif had and not (target.parent / f".{target.name}.old").exists():
            return "what was fetched before is lost"
        found = self.settle(target, force=False)
        wrong = [
            name for name in found.keys() | self.golden if found.get(name) != self.golden.get(name)
        ]
        return f"differs after the rerun: {sorted(wrong)}" if wrong else None


def tree(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


@pytest.fixture(scope="module")
def field(tmp_path_factory):
    made = Field(tmp_path_factory.mktemp("kills"), big=True)
    yield made
    made.close()


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    made = Field(tmp_path_factory.mktemp("sweep"), big=False)
    yield made
    made.close()


# -- at random times


def kill(field: Field, number: int) -> str | None:
    """Kill one fetch at a random time, often several in a row, then let one end."""
    rng = random.Random(number)
    target = field.fresh(number)
    for _ in range(rng.randint(1, 3)):
        delay = rng.uniform(0, 1.2 * field.seconds)
        field.play(target=target, force=bool(number % 2), delay=delay)
    try:
        return field.judge(target, had=bool(number % 2))
    except Exception as error:  # noqa: BLE001 - whatever it is, the case has failed
        return f"{type(error).__name__}: {error}"


def test_f1_a_share_of_random_kills(field, tally) -> None:
    tally.share("random kills of fetch", lambda number: kill(field, number), range(12))


@pytest.mark.gauntlet
@pytest.mark.timeout(1800)
def test_f1_two_hundred_random_kills(field, tally) -> None:
    note = "one to three kills each, then a rerun"
    tally.full("random kills of fetch", lambda number: kill(field, number), 200, note=note)


# -- at every call that writes


def traced(field: Field, target: Path, *options: str) -> int:
    """Fetch under strace, attached after everything is imported; return the child's status."""
    force = target.exists()
    field.ask(target=target, force=force, serial=True, hold=True)
    child = field.hear()
    log = field.base / "strace.log"
    words = ["strace", "-f", "-o", str(log), *options, "-p", str(child)]
    tracer = subprocess.Popen(words, stderr=subprocess.PIPE, text=True)
    said = tracer.stderr.readline()
    field.process.stdin.write("go\n")
    field.process.stdin.flush()
    status = field.hear()
    tracer.communicate(timeout=30)
    if "attached" not in said:
        pytest.skip(f"strace cannot attach here: {said.strip()}")
    return status


def points(field: Field) -> list[tuple[int, str, str, int]]:
    """List (start, call, fault, which) of every call that a whole fetch makes."""
    found = []
    for start in (0, 1):
        assert traced(field, field.fresh(start), "-e", f"trace={','.join(CALLS)}") == 0
        lines = (field.base / "strace.log").read_text().splitlines()
        calls = [(match[1], line) for line in lines if (match := COUNTED.match(line))]
        for call in CALLS:
            same = [line for name, line in calls if name == call]
            # To open for reading changes nothing.
            numbers = [n for n, line in enumerate(same, 1) if call != "openat" or "O_CREAT" in line]
            found += [(start, call, "signal=KILL", number) for number in numbers]
            if call in FULL:
                found += [(start, call, "error=ENOSPC", number) for number in numbers]
    return found


def strike(field: Field, point: tuple[int, str, str, int]) -> str | None:
    start, call, fault, number = point
    target = field.fresh(start)
    options = ["-e", f"trace={call}", "-e", f"inject={call}:{fault}:when={number}"]
    status = traced(field, target, *options)
    if fault == "signal=KILL" and status != -signal.SIGKILL:
        return f"{point}: was not killed but ended with {status}"
    # A full disk is said in words (7), or was in a place where it does no harm.
    if fault == "error=ENOSPC" and status not in (0, 7):
        return f"{point}: ended with {status}: {field.said()}"
    try:
        wrong = field.judge(target, had=bool(start))
    except Exception as error:  # noqa: BLE001 - whatever it is, the case has failed
        wrong = f"{type(error).__name__}: {error}"
    return f"{point}: {wrong}" if wrong else None


needs_strace = pytest.mark.skipif(not shutil.which("strace"), reason="strace is not installed")


@needs_strace
def test_f1_f3_a_share_of_the_boundaries(small, tally) -> None:
    found = points(small)
    chosen = random.Random(0).sample(found, 12)
    tally.share(
        "write boundaries of fetch", lambda number: strike(small, chosen[number]), range(12)
    )


@needs_strace
@pytest.mark.gauntlet
@pytest.mark.timeout(3600)
def test_f1_f3_every_boundary(small, tally) -> None:
    found = points(small)
    note = "kill or full disk at every write, sync, rename, unlink and open"
    name = "write boundaries of fetch"
    tally.full(name, lambda number: strike(small, found[number]), len(found), note=note)


def test_the_survey_of_a_fetched_tree_is_that_of_the_plain_folder(small) -> None:
    folder = small.base / "plain"
    shutil.copytree(small.base / "made" / "public", folder)
    survey(folder, SPEC, Plan(2), version="")
    for name in ("index.csv", "folds.csv", "dirt.csv"):
        assert (folder / name).read_bytes() == small.golden[name]

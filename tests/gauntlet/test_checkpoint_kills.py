"""kill -9, a full or failing disk anywhere in saving a checkpoint: one always loads (F9)."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from kagflow.learn import checkpoint

CHILD = Path(__file__).with_name("checkpoint_child.py")
KILLS, SHARED = 200, 8
CALLS = ("openat", "write", "fsync", "rename", "chmod", "unlink", "close")
FAULTS = ("signal=KILL", "error=ENOSPC", "error=EIO")
# A close that fails has closed, and an unlink that fails leaves a file too many.
FAILING = ("openat", "write", "fsync", "rename")


class Savers:
    """Ask the process that forks savers, and hold them to their word."""

    def __init__(self, base: Path) -> None:
        self.base = base
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        self.process = subprocess.Popen(
            [sys.executable, str(CHILD)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=environment,
        )

    def ask(self, folder: Path, *, first: int, count: int, stop: bool = False) -> int:
        asked = {"folder": str(folder), "first": first, "count": count, "stop": stop}
        print(json.dumps(asked), file=self.process.stdin, flush=True)
        # A saver that is quick may speak before its parent does.
        self.said: list[str] = []
        while not (line := self.read()).startswith("pid "):
            self.said.append(line)
        return int(line.split()[1])

    def read(self) -> str:
        assert self.process.stdout is not None
        line = self.process.stdout.readline().strip()
        assert line, "the process that forks savers is gone"
        return line

    def rest(self) -> list[str]:
        while (line := self.read()) != "end":
            self.said.append(line)
        return self.said

    def kill(self, number: int) -> str:
        """Kill a saver at a random moment; return what is wrong afterwards."""
        rng = random.Random(number)
        folder = self.fresh(f"kill-{number}")
        pid = self.ask(folder, first=1, count=400)
        time.sleep(rng.uniform(0.002, 0.12))
        os.kill(pid, signal.SIGKILL)
        return fault(folder, self.rest()) or self.goes_on(folder)

    def inject(self, call: str, what: str, when: int) -> tuple[str, bool]:
        """Have a system call of the third save fail; return what is wrong, and whether it hit."""
        folder = self.fresh("sweep")
        for step in (1, 2):
            checkpoint.save(folder, {"step": step}, step=step, epoch=0)
        pid = self.ask(folder, first=3, count=1, stop=True)
        stopped(pid)
        words = ["strace", "-qq", "-o", "/dev/null", "-p", str(pid), "-e", f"trace={call}"]
        tracer = subprocess.Popen(
            [*words, "-e", f"inject={call}:{what}:when={when}"], stderr=subprocess.DEVNULL
        )
        attached(pid)
        os.kill(pid, signal.SIGCONT)
        said = self.rest()
        tracer.wait(20)
        wrong = fault(folder, [*said, "saved 2"]) or self.goes_on(folder)
        return wrong, "saved 3" not in said

    def goes_on(self, folder: Path) -> str:
        """Save once more over whatever lies there; return what is wrong afterwards."""
        self.ask(folder, first=1000, count=1)
        said = self.rest()
        left = [path.name for path in folder.iterdir() if path.name.endswith(".tmp")]
        return fault(folder, said) or (f"left {left}" if left else "")

    def fresh(self, name: str) -> Path:
        folder = self.base / name
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        return folder

    def close(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.wait(20)


def fault(folder: Path, said: list[str]) -> str:
    """Return what is wrong: nothing loads, a save that returned is lost, or bytes are another's."""
    saved = [int(line.split()[1]) for line in said if line.startswith("saved ")]
    if not saved and not list(folder.glob("ckpt-*.json")):
        return ""
    found = checkpoint.newest(folder)
    if found is None:
        return "no checkpoint loads"
    if found.step < max(saved, default=0):
        return f"step {max(saved)} was saved, {found.step} is the newest that loads"
    if found.state["step"] != found.step:
        return f"checkpoint {found.step} holds step {found.state['step']}"
    layers = found.state.get("model", {}).values()
    whole = all(torch.equal(one, torch.full((64, 64), float(found.step))) for one in layers)
    return "" if whole else f"checkpoint {found.step} holds other weights"


def stopped(pid: int) -> None:
    wait_for(lambda: status(pid, "State").startswith("T"))


def attached(pid: int) -> None:
    wait_for(lambda: status(pid, "TracerPid") != "0")


def status(pid: int, key: str) -> str:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(line.partition(":")[2].strip() for line in lines if line.startswith(f"{key}:"))


def wait_for(ready) -> None:
    deadline = time.monotonic() + 20
    while not ready():
        assert time.monotonic() < deadline
        time.sleep(0.002)


@pytest.fixture(scope="module")
def savers(tmp_path_factory):
    one = Savers(tmp_path_factory.mktemp("savers"))
    yield one
    one.close()


def test_share_of_random_kills(savers, tally):
    tally.share("kills while saving a checkpoint", savers.kill, range(SHARED))


@pytest.mark.gauntlet
def test_all_random_kills(savers, tally):
    note = "no checkpoint loads, an acknowledged one is lost, or its bytes are another's"
    tally.full("kills while saving a checkpoint", savers.kill, KILLS, note=note)


def boundaries(savers, calls, faults):
    """Yield what is wrong at each call of a save, until a save ends unhit."""
    for call in calls:
        for what in faults:
            if what != "signal=KILL" and call not in FAILING:
                continue
            hit, when = True, 0
            while hit:
                when += 1
                wrong, hit = savers.inject(call, what, when)
                if hit or wrong:
                    yield f"{call} {what} {when}: {wrong}" if wrong else ""


@pytest.mark.skipif(shutil.which("strace") is None, reason="strace is not installed")
def test_share_of_write_boundaries(savers):
    found = list(boundaries(savers, ("fsync", "rename"), ("signal=KILL",)))
    # Twice two files and a folder each.
    assert len(found) == 6
    assert [wrong for wrong in found if wrong] == []


@pytest.mark.gauntlet
@pytest.mark.skipif(shutil.which("strace") is None, reason="strace is not installed")
def test_all_write_boundaries(savers, tally):
    found = list(boundaries(savers, CALLS, FAULTS))
    assert len(found) > 20
    note = "kill, full or failing disk at every open, write, sync, rename, chmod, unlink and close"
    tally.full("write boundaries of a checkpoint", found.__getitem__, len(found), note=note)

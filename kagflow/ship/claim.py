"""Let one kagflow at a time work in a folder, and name it to the others."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from kagflow import durable
from kagflow.errors import RefusedError

WAIT = 5.0  # seconds for another kagflow that works there


@contextlib.contextmanager
def claim(target: Path, what: str) -> Iterator[None]:
    """Hold `target` (a folder that need not exist) for this process.

    The lock is the kernel's and ends with its process. Where a file system does not know locks, a
    note of the owner's process does; a note whose process has gone is ignored. Raises RefusedError
    after WAIT seconds, naming the owner's pid, host and age.
    """
    from filelock import FileLock, Timeout

    target.parent.mkdir(parents=True, exist_ok=True)
    note = target.parent / f".{target.name}.owner.json"
    deadline = time.monotonic() + WAIT
    try:
        with FileLock(target.parent / f".{target.name}.lock", timeout=WAIT):
            while _is_alive(_read(note)):
                if time.monotonic() > deadline:
                    raise _taken(target, what, note)
                time.sleep(0.05)
            _sweep(note)
            durable.write_json(note, {**_me(), "since": time.time()})
            try:
                yield
            finally:
                note.unlink(missing_ok=True)
    except Timeout:
        raise _taken(target, what, note) from None


def _me() -> dict[str, Any]:
    return {"host": socket.gethostname(), "pid": os.getpid(), "started": _started(os.getpid())}


def _read(note: Path) -> dict[str, Any]:
    try:
        found = json.loads(note.read_text())
        return dict(found)
    except (OSError, ValueError, TypeError):
        return {}


def _is_alive(owner: dict[str, Any]) -> bool:
    """Tell whether the note's process runs; of another host nothing is known: its lock decides."""
    if owner.get("host") != socket.gethostname() or owner.get("pid") == os.getpid():
        return False
    started = _started(int(owner.get("pid", 0)))
    return started is not None and started == owner.get("started")


def _started(pid: int) -> int | None:
    """Return when a process began, in the kernel's ticks; a number is given out again, this not."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        return int(fields[19])
    except (OSError, ValueError, IndexError):
        return None


def _taken(target: Path, what: str, note: Path) -> RefusedError:
    owner = _read(note)
    who = "another kagflow"
    if owner:
        age = max(0.0, time.time() - float(owner.get("since", time.time())))
        who += f" (pid {owner.get('pid')} on {owner.get('host')}, for {age:.0f} s)"
    return RefusedError(f"{who} {what} {target}", hint="wait for it, then run again")


def _sweep(note: Path) -> None:
    for stray in note.parent.glob(f".{note.name}.*.tmp"):
        stray.unlink(missing_ok=True)

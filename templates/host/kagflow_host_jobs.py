"""Commands that run on when the connection ends: started once, followed from any byte."""

from __future__ import annotations

import base64
import contextlib
import fcntl
import os
import platform
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from kagflow_host_common import inside, read_json, write_json

LOG_CHUNK = 1 << 18
GRACE_SECONDS = 120.0
START_SECONDS = 30.0
POLL_SECONDS = 0.1
NOT_FOUND = 127
APPEND = os.O_WRONLY | os.O_CREAT | os.O_APPEND


def start(
    home: str,
    job: str,
    steps: Sequence[Mapping[str, Any]],
    deadline: float | None = None,
    note: Any = None,
) -> dict[str, Any]:
    """Start a job's commands one after another, once: a job that runs is left as it is.

    A step has `argv`, and may have `cwd`, `env`, `kept` (its stdout goes to a file of its own) and
    `anyway` (those after it run though it failed). `{left}` in an argument is the seconds to the
    deadline. The job lives in a session of its own; at the deadline it is asked to stop.
    """
    folder = inside(home, f"jobs/{job}")
    folder.mkdir(parents=True, exist_ok=True)
    lock = os.open(folder / "lock", os.O_RDWR | os.O_CREAT, 0o600)
    if not _take(lock) or _noted_alive(folder):
        os.close(lock)
        return {"fresh": False, **status(home, job)}
    for old in (folder / "exit.json", folder / "pid.json", *folder.glob("out-*")):
        old.unlink(missing_ok=True)
    begun = {"started": time.time(), "log_from": _size(folder / "log"), "note": note}
    write_json(folder / "job.json", begun)
    sys.stdout.flush()
    if os.fork() == 0:
        try:
            _detach(folder)
            _supervise(folder, lock, steps, deadline)
        finally:
            os._exit(0)
    os.close(lock)
    # The answer must not come before there is something to find.
    until = time.time() + START_SECONDS
    while not (folder / "pid.json").is_file() and time.time() < until:
        if (folder / "exit.json").is_file():
            break
        time.sleep(0.01)
    return {"fresh": True, **status(home, job)}


def status(home: str, job: str) -> dict[str, Any]:
    """Say of a job: none, running, ended (with its exit), or gone without a word."""
    folder = inside(home, f"jobs/{job}")
    begun = read_json(folder / "job.json")
    if begun is None:
        return {"state": "none", "now": time.time()}
    # In this order: it may end between the two looks, and then has left its word.
    alive, ending = _alive(folder), read_json(folder / "exit.json")
    state = "running" if alive else "ended" if ending else "gone"
    pids = [one["pid"] for one in (read_json(folder / "pid.json") or {"of": []})["of"]]
    told = {"state": state, "exit": ending, "now": time.time(), "size": _size(folder / "log")}
    # The keeper's: it hands a SIGTERM on to whatever runs.
    return {**begun, "pid": pids[0] if pids else None, **told}


def follow(home: str, job: str, offset: int, wait: float) -> dict[str, Any]:
    """Return the log's whole lines from a byte offset as soon as there are any, or its end."""
    log = inside(home, f"jobs/{job}") / "log"
    until = time.time() + wait
    while True:
        told = status(home, job)
        data = _read_from(log, offset)
        if told["state"] == "running" and b"\n" in data:
            # A line that is being written comes with the next answer.
            data = data[: data.rfind(b"\n") + 1]
        elif told["state"] == "running" and len(data) < LOG_CHUNK:
            data = b""
        if data or told["state"] != "running" or time.time() > until:
            text = base64.b64encode(data).decode()
            return {**told, "data": text, "offset": offset + len(data)}
        time.sleep(POLL_SECONDS)


def newest(home: str, space: str) -> dict[str, Any]:
    """Return the job of a workspace that was started last, None where there is none."""
    found = []
    for file in Path(home, "jobs").glob("*/job.json"):
        told = read_json(file) or {}
        if (told.get("note") or {}).get("space") == space:
            found.append((told["started"], file.parent.name))
    return {"job": max(found)[1] if found else None}


def said(home: str, job: str) -> dict[str, Any]:
    """Return what each step of a job wrote to its stdout, where that was kept."""
    folder = inside(home, f"jobs/{job}")
    return {"texts": [path.read_text(errors="replace") for path in sorted(folder.glob("out-*"))]}


def _take(lock: int) -> bool:
    until = time.time() + 1.0
    while True:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            # Somebody who only looks holds it for a moment.
            if time.time() > until:
                return False
            time.sleep(0.02)
        else:
            return True


def _detach(folder: Path) -> None:
    os.setsid()
    if os.fork():
        os._exit(0)
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    null = os.open(os.devnull, os.O_RDWR)
    log = os.open(folder / "log", APPEND, 0o600)
    for number, target in ((null, 0), (log, 1), (log, 2)):
        os.dup2(number, target)


def _supervise(
    folder: Path, lock: int, steps: Sequence[Mapping[str, Any]], deadline: float | None
) -> None:
    """Run the steps up to the first that fails; say how it ended, last of all."""
    until = None if deadline is None else time.time() + deadline
    asked: list[int] = []
    signal.signal(signal.SIGTERM, lambda number, _: asked.append(number))
    ending: dict[str, Any] = {"code": 1, "late": False}
    failed: dict[str, Any] | None = None
    try:
        for number, step in enumerate(steps):
            ending = _step(folder, lock, step, number, until, asked)
            if ending["code"]:
                failed = failed or ending
            if asked or ending["late"] or (ending["code"] and not step.get("anyway")):
                break
    finally:
        write_json(folder / "exit.json", {**(failed or ending), "ended": time.time()})


def _step(
    folder: Path,
    lock: int,
    step: Mapping[str, Any],
    number: int,
    until: float | None,
    asked: Sequence[int],
) -> dict[str, Any]:
    left = "" if until is None else f"{max(1.0, until - time.time()):.0f}"
    out = os.open(folder / (f"out-{number:03}" if step.get("kept") else "log"), APPEND, 0o600)
    try:
        child = subprocess.Popen(
            [word.replace("{left}", left) for word in step["argv"]],
            cwd=step.get("cwd"),
            env={**os.environ, **step.get("env", {})},
            stdin=subprocess.DEVNULL,
            stdout=out,
            # As long as it lives the job is taken, whatever becomes of this process.
            pass_fds=(lock,),
            start_new_session=True,
        )
    except OSError as error:
        os.write(2, f"{step['argv'][0]}: {error}\n".encode())
        return {"code": NOT_FOUND, "late": False}
    finally:
        os.close(out)
    write_json(folder / "pid.json", {"of": [_self(os.getpid()), _self(child.pid)]})
    return _wait(child, until, asked)


def _wait(
    child: subprocess.Popen[bytes], until: float | None, asked: Sequence[int]
) -> dict[str, Any]:
    """Wait for a command; at the deadline, or when asked, end it: first kindly."""
    late, last = False, None
    while child.poll() is None:
        now = time.time()
        late = late or (until is not None and now > until)
        if last is None and (late or asked):
            last = now + GRACE_SECONDS
            child.terminate()
        elif last is not None and now > last:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(child.pid, signal.SIGKILL)
        time.sleep(POLL_SECONDS)
    return {"code": child.returncode, "late": late}


def _read_from(path: Path, offset: int) -> bytes:
    try:
        with path.open("rb") as file:
            file.seek(offset)
            return file.read(LOG_CHUNK)
    except FileNotFoundError:
        return b""


def _size(path: Path) -> int:
    return path.stat().st_size if path.is_file() else 0


def _alive(folder: Path) -> bool:
    """Tell whether a job runs: its lock is held, or one of its processes is there."""
    try:
        lock = os.open(folder / "lock", os.O_RDWR)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError:
        return True
    finally:
        os.close(lock)
    # Some file systems of a network take every lock.
    return _noted_alive(folder)


def _noted_alive(folder: Path) -> bool:
    noted = read_json(folder / "pid.json") or {"of": []}
    return any(one["began"] and one == _self(one["pid"]) for one in noted["of"])


def _self(pid: int) -> dict[str, Any]:
    return {"pid": pid, "host": platform.node(), "began": _began(pid)}


def _began(pid: int) -> str | None:
    """Return boot and ticks at which a process began, None for one that is gone.

    A number is given out again, this is not.
    """
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return None
    return None if fields[0] in "ZX" else f"{boot} {fields[19]}"

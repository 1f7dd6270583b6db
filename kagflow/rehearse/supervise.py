"""Watch a running kernel: its time, the memory of its whole tree, and what it prints."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Protocol, TypedDict

# The watch costs about a tenth of this; a kernel can gain some 0.5 GB before it is seen.
_TICK_S = 0.1
_LINE_BYTES = 65536


class LogRecord(TypedDict):
    """One line of a kernel's log in Kaggle's form; `time` is in seconds since its start."""

    stream_name: str
    time: float
    data: str


class Running(Protocol):
    """The part of subprocess.Popen that a watch needs."""

    pid: int
    returncode: int
    stdout: IO[bytes] | None
    stderr: IO[bytes] | None

    def poll(self) -> int | None:
        """Return the exit status, None while running."""

    def wait(self, timeout: float | None = None) -> int:
        """Return the exit status once there is one."""


OnLine = Callable[[LogRecord], None]


@dataclass(frozen=True)
class Outcome:
    """How a process tree ended; `peak_bytes` is the largest proportional set size seen."""

    returncode: int
    seconds: float
    peak_bytes: int
    timed_out: bool
    out_of_memory: bool
    log: list[LogRecord]


class Log:
    """Collect records from both streams; write them to a file as they come, if there is one."""

    def __init__(self, path: Path | None, on_line: OnLine | None) -> None:
        self.records: list[LogRecord] = []
        self._on_line = on_line
        self._lock = threading.Lock()
        self._start = time.monotonic()
        self._file = path.open("w", encoding="utf-8") if path else None
        self._write("[")

    def follow(self, name: str, stream: IO[bytes]) -> None:
        """Take lines until the stream ends."""
        for line in iter(lambda: stream.readline(_LINE_BYTES), b""):
            self.add(name, line.decode(errors="replace"))

    def add(self, name: str, text: str) -> None:
        """Take one line."""
        with self._lock:
            seconds = round(time.monotonic() - self._start, 3)
            record = LogRecord(stream_name=name, time=seconds, data=text)
            self._write(("\n," if self.records else "") + json.dumps(record))
            self.records.append(record)
            if self._on_line:
                self._on_line(record)

    def close(self) -> None:
        """End the file as valid JSON."""
        with self._lock:
            self._write("\n]")
            if self._file:
                self._file.close()

    def _write(self, text: str) -> None:
        if self._file:
            self._file.write(text)
            self._file.flush()


def supervise(process: Running, log: Log, *, time_limit_s: float, memory_bytes: int) -> Outcome:
    """Wait for `process`, which leads its own group; kill the group at either limit."""
    readers = [
        threading.Thread(target=log.follow, args=(name, stream), daemon=True)
        for name, stream in (("stdout", process.stdout), ("stderr", process.stderr))
        if stream
    ]
    for reader in readers:
        reader.start()
    start = time.monotonic()
    peak, timed_out, out_of_memory = 0, False, False
    # Short kernels are looked at more often.
    tick = _TICK_S / 10
    try:
        while process.poll() is None:
            peak = max(peak, tree_bytes(process.pid))
            timed_out = time.monotonic() - start > time_limit_s
            out_of_memory = peak > memory_bytes
            if timed_out or out_of_memory:
                break
            time.sleep(tick)
            tick = min(tick * 1.5, _TICK_S)
    finally:
        _kill(process)
        seconds = time.monotonic() - start
        for reader in readers:
            reader.join(timeout=10)
        log.close()
    return Outcome(process.returncode, seconds, peak, timed_out, out_of_memory, log.records)


def tree_bytes(pid: int) -> int:
    """Return the memory of a process and all below it, pages in common counted once."""
    return sum(_process_bytes(one) for one in _tree(pid))


def _tree(pid: int) -> Iterator[int]:
    yield pid
    try:
        tasks = list(Path(f"/proc/{pid}/task").iterdir())
        children = [word for task in tasks for word in (task / "children").read_text().split()]
    except OSError:
        return
    for child in children:
        yield from _tree(int(child))


def _process_bytes(pid: int) -> int:
    try:
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                return int(line.split()[1]) * 1024
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:
        return 0


def _kill(process: Running) -> None:
    # The namespace's first process dies with its parent, and the kernel kills the rest.
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()

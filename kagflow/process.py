"""The only user of subprocess: argument lists in, checked results out."""

from __future__ import annotations

import signal
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from kagflow.errors import LocalError


@dataclass(frozen=True)
class Completed:
    """What a finished command left: texts are decoded UTF-8, time is in seconds."""

    argv: tuple[str, ...]
    returncode: int
    stdout: str
    stderr: str
    seconds: float


def run(
    argv: Sequence[str | Path],
    *,
    cwd: Path | None = None,
    env: Mapping[str, str] | None = None,
    timeout: float | None = None,
    check: bool = True,
    stdin: str | None = None,
) -> Completed:
    """Run a command to its end and return its output.

    Raises LocalError when the command is missing, late, or (with `check`) fails.
    """
    words = tuple(str(word) for word in argv)
    start = time.monotonic()
    try:
        done = subprocess.run(
            words,
            cwd=cwd,
            env=None if env is None else dict(env),
            timeout=timeout,
            input=stdin,
            capture_output=True,
            text=True,
            errors="replace",
            check=False,
        )
    except FileNotFoundError as error:
        raise LocalError(f"'{words[0]}' is not installed: {error}") from None
    except subprocess.TimeoutExpired:
        raise LocalError(f"'{words[0]}' took longer than {timeout:g} s") from None
    result = Completed(words, done.returncode, done.stdout, done.stderr, time.monotonic() - start)
    if check and result.returncode:
        tail = (result.stderr or result.stdout).strip()[-2000:]
        raise LocalError(f"'{' '.join(words[:4])}' failed ({result.returncode}): {tail}")
    return result


def spawn(
    argv: Sequence[str | Path],
    *,
    cwd: Path | None = None,
    env: Mapping[str, str] | None = None,
    stdout: int | IO[bytes] | None = None,
    stderr: int | IO[bytes] | None = None,
    pass_fds: Sequence[int] = (),
) -> subprocess.Popen[bytes]:
    """Start a command in a session of its own, so that a signal to us does not reach it."""
    return subprocess.Popen(
        [str(word) for word in argv],
        cwd=cwd,
        env=None if env is None else dict(env),
        stdin=subprocess.DEVNULL,
        stdout=stdout,
        stderr=stderr,
        pass_fds=tuple(pass_fds),
        start_new_session=True,
    )


def stream(
    argv: Sequence[str | Path], say: Callable[[str], None], *, cwd: Path | None = None
) -> int:
    """Run a command and `say` its lines, of both outputs, as they come; return its exit status.

    An interrupt goes on to the command, whose last lines are still said before it is raised here.
    """
    child = subprocess.Popen(
        [str(word) for word in argv],
        cwd=cwd,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        # An interrupt of ours would reach it a second time through the terminal.
        start_new_session=True,
    )
    assert child.stdout is not None
    interrupted = False
    with child.stdout as lines:
        while True:
            try:
                for line in lines:
                    say(line.rstrip("\n"))
                status = child.wait()
                break
            except KeyboardInterrupt:
                interrupted = True
                child.send_signal(signal.SIGINT)
    if interrupted:
        raise KeyboardInterrupt
    return status


PIPE = subprocess.PIPE
STDOUT = subprocess.STDOUT
DEVNULL = subprocess.DEVNULL

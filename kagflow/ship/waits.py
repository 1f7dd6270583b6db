"""Wait for what Kaggle does in its own time: polls that slow down, and a kernel's live log."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

from kagflow.errors import NetworkError
from kagflow.progress import QUIET, Progress
from kagflow.ship.remote import Remote
from kagflow.ship.remote_errors import NoSlotError
from kagflow.ship.remote_types import KernelPush, KernelStatus, Pushed

Seen = TypeVar("Seen")
# Seconds between two looks at most: the embedded Kaggle answers at once, the real one counts calls.
LONGEST_WAIT = {"local": 0.4, "kaggle": 60.0}


def poll(
    remote: Remote,
    look: Callable[[], Seen],
    done: Callable[[Seen], bool],
    *,
    limit_s: float,
    what: str,
) -> Seen:
    """Look again and again until `done`; return what was seen last.

    Raises NetworkError after `limit_s` seconds: the same command then waits on.
    """
    ends, wait = time.monotonic() + limit_s, 0.1
    while True:
        found = look()
        if done(found):
            return found
        if time.monotonic() > ends:
            raise NetworkError(
                f"{what} has not ended after {limit_s / 3600:.1f} hours",
                hint="run the same command again: it waits on",
            )
        remote.transport.sleep(wait)
        wait = min(LONGEST_WAIT[remote.profile], wait * 1.5)


def follow_kernel(
    remote: Remote, ref: str, version: int, *, limit_s: float, progress: Progress = QUIET
) -> KernelStatus:
    """Wait until a kernel version ended, passing on what it prints, each line once."""
    progress.start(f"kernel {ref} version {version}")
    shown = 0

    def look() -> KernelStatus:
        nonlocal shown
        status = remote.kernel_status(ref, version)
        if status.name == "RUNNING":
            for count, line in enumerate(remote.kernel_stream(ref, version), 1):
                for text in line.text.splitlines() if count > shown else ():
                    if text.strip():
                        progress.note(text.rstrip())
                shown = max(shown, count)
        return status

    try:
        return poll(
            remote,
            look,
            lambda status: status.ended,
            limit_s=limit_s,
            what=f"kernel {ref} version {version}",
        )
    finally:
        progress.finish()


def push_when_free(
    remote: Remote, push: KernelPush, *, limit_s: float, progress: Progress = QUIET
) -> Pushed:
    """Push a kernel, waiting while as many sessions run as the account may have.

    Raises RemoteError with Kaggle's own words after `limit_s` seconds, and for any other refusal.
    """
    ends, wait, told = time.monotonic() + limit_s, 1.0, False
    while True:
        try:
            return remote.push_kernel(push)
        except NoSlotError as error:
            if time.monotonic() > ends:
                raise
            if not told:
                progress.note(f"{error.message} Waiting until a running one ends.")
            told = True
        remote.transport.sleep(min(wait, LONGEST_WAIT[remote.profile]))
        wait *= 1.5

"""Tell of a training's epochs in its log, for the kagflow that reads it on another machine."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from kagflow.errors import UsageError
from kagflow.progress import Progress

if TYPE_CHECKING:
    from kagflow.learn.relay import LogRelay

# Set where kagflow trains for another: the least seconds between two signs of life in its log.
EVERY = "KAGFLOW_NEWS"
# What says that a training begins, and that it is over, whatever became of it.
BEGIN, OVER = "begin", "over"


@contextmanager
def told(title: str, plain: Progress) -> Iterator[Progress]:
    """Yield who takes a training's news: `plain`, or its log where another kagflow reads that.

    Raises UsageError where KAGFLOW_NEWS is no number of seconds.
    """
    every = os.environ.get(EVERY)
    if every is None:
        yield plain
        return
    from kagflow.learn.relay import LogRelay

    relay = LogRelay(sys.stderr, title, _seconds(every))
    relay.tell(BEGIN)
    try:
        yield _Told(plain, relay)
    finally:
        relay.tell(OVER)


class _Told:
    """Pass epochs on as news; all else is said as ever."""

    def __init__(self, plain: Progress, relay: LogRelay) -> None:
        self._plain, self._relay = plain, relay
        self._at_work: Progress = plain

    def start(self, label: str, total: float | None = None, unit: str = "") -> None:
        """Begin an epoch, whose unit is steps, or another piece of work."""
        self._at_work = self._relay if unit == "steps" else self._plain
        self._at_work.start(label, total, unit)

    def advance(self, n: float = 1) -> None:
        """Count `n` more units as done."""
        self._at_work.advance(n)

    def show(self, figures: Mapping[str, Any], *, whole: bool = False) -> None:
        """Tell an epoch's figures."""
        self._relay.show(figures, whole=whole)

    def note(self, text: str) -> None:
        """Say one line: a log without its reader is read by people."""
        self._plain.note(text)

    def finish(self) -> None:
        """End the piece of work."""
        self._at_work.finish()


def _seconds(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise UsageError(f"{EVERY}={text} is no number of seconds", hint=f"unset {EVERY}") from None

"""News of a training in another process: JSON lines that one writes and one follows.

They go to a file, or among the lines of a log that is read on another machine.
"""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, TextIO

from kagflow.progress import Progress

# Steps may be thousands a second; who watches sees no more than this.
EVERY = 0.2

News = dict[str, Any]


class _Teller:
    """Tell a training's news: it is a Progress, and called with an epoch's line.

    `every` is the least time between two signs of life, in seconds.
    """

    def __init__(self, every: float) -> None:
        self._every = every
        self._steps = 0.0
        self._figures: Mapping[str, Any] | None = None
        self._at = 0.0

    def start(self, label: str, total: float | None = None, unit: str = "") -> None:
        """Tell that a piece of work begins."""
        self.tell("start", label=label, total=total, unit=unit)

    def advance(self, n: float = 1) -> None:
        """Count, and tell now and then."""
        self._steps += n
        self._now_and_then()

    def show(self, figures: Mapping[str, Any], *, whole: bool = False) -> None:
        """Tell an epoch's figures; of those under way the last, now and then."""
        if whole:
            self.tell("show", figures=figures, whole=True)
        else:
            self._figures = figures
            self._now_and_then()

    def note(self, text: str) -> None:
        """Tell one line."""
        self.tell("note", text=text)

    def finish(self) -> None:
        """Tell that the piece of work has ended."""
        self.tell("finish")

    def __call__(self, line: Mapping[str, Any]) -> None:
        """Tell an epoch's line of metrics.jsonl."""
        self.tell("epoch", line=line)

    def tell(self, what: str, **facts: Any) -> None:
        """Write one piece of news, after the steps that came before it."""
        news = []
        if self._steps:
            news.append({"what": "advance", "n": self._steps})
        if self._figures is not None:
            news.append({"what": "show", "figures": self._figures, "whole": False})
        self._steps, self._figures, self._at = 0.0, None, time.monotonic()
        news += [{"what": what, **facts}] if what else []
        self._write(news)

    def _now_and_then(self) -> None:
        if time.monotonic() - self._at >= self._every:
            self.tell("")
            self._told()

    def _write(self, news: list[News]) -> None:
        raise NotImplementedError

    def _told(self) -> None:
        """Take note that a sign of life was given."""


class Relay(_Teller):
    """Write a training's news to a file.

    `parent` is the process for which the training runs: where that is gone, so that nobody waits
    for the result, this one is told to stop as by SIGTERM.
    """

    def __init__(self, path: Path, parent: int) -> None:
        super().__init__(EVERY)
        self._path, self._parent = path, parent

    def _write(self, news: list[News]) -> None:
        # One write: several processes may tell at once.
        with self._path.open("a") as file:
            file.write(_lines(news))

    def _told(self) -> None:
        if not alive(self._parent):
            os.kill(os.getpid(), signal.SIGTERM)


class LogRelay(_Teller):
    """Write a training's news among the lines of a log, each with the training that it is `of`."""

    def __init__(self, log: TextIO, of: str, every: float) -> None:
        super().__init__(every)
        self._log, self._of = log, of

    def _write(self, news: list[News]) -> None:
        self._log.write(_lines([{"what": one["what"], "of": self._of, **one} for one in news]))
        self._log.flush()


class Follower:
    """Read a relay's news as they come."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._read = 0

    def news(self) -> Iterator[News]:
        """Yield what has come since the last call."""
        if not self._path.is_file():
            return
        with self._path.open("rb") as file:
            file.seek(self._read)
            data = file.read()
        # The last line may not be whole yet.
        whole = data[: data.rfind(b"\n") + 1]
        self._read += len(whole)
        yield from (json.loads(line) for line in whole.splitlines())


def replay(
    news: News, progress: Progress, on_epoch: Callable[[dict[str, Any]], None] | None
) -> bool:
    """Pass one piece of news on to those who watch; tell whether it was for them."""
    match news["what"]:
        case "start":
            progress.start(news["label"], news["total"], news["unit"])
        case "advance":
            progress.advance(news["n"])
        case "show":
            progress.show(news["figures"], whole=news["whole"])
        case "note":
            progress.note(news["text"])
        case "finish":
            progress.finish()
        case "epoch":
            if on_epoch is not None:
                on_epoch(news["line"])
        case _:
            return False
    return True


def _lines(news: list[News]) -> str:
    return "".join(json.dumps(one, default=str) + "\n" for one in news)


def alive(process: int) -> bool:
    """Tell whether a process of this number runs."""
    with suppress(PermissionError):
        try:
            os.kill(process, 0)
        except ProcessLookupError:
            return False
    return True

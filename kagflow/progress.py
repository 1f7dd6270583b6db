"""How a room tells of long work without knowing who listens. Travels to Kaggle."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Protocol

# How a line of a log begins that is news for another kagflow: a JSON object, first of all `what`.
NEWS = '{"what": "'


class Progress(Protocol):
    """Take news of one piece of work at a time: start, advance, show, note, finish."""

    def start(self, label: str, total: float | None = None, unit: str = "") -> None:
        """Begin a piece of work; `total` is in `unit`, None where it is not known."""

    def advance(self, n: float = 1) -> None:
        """Count `n` more units as done."""

    def show(self, figures: Mapping[str, Any], *, whole: bool = False) -> None:
        """Tell figures of the work under way, or what an epoch came to as a `whole`.

        kagflow.learn.loop says which; a listener shows those that it knows.
        """

    def note(self, text: str) -> None:
        """Say one line beside the bar."""

    def finish(self) -> None:
        """End the piece of work."""


class _Quiet:
    def start(self, label: str, total: float | None = None, unit: str = "") -> None:
        pass

    def advance(self, n: float = 1) -> None:
        pass

    def show(self, figures: Mapping[str, Any], *, whole: bool = False) -> None:
        pass

    def note(self, text: str) -> None:
        pass

    def finish(self) -> None:
        pass


QUIET: Progress = _Quiet()


def read_news(line: str) -> dict[str, Any] | None:
    """Return the news that a log's line holds, `what` happened `of` which training; else None."""
    if not line.startswith(NEWS):
        return None
    try:
        news = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return news if isinstance(news.get("of"), str) else None

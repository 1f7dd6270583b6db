"""Watch trainings through a log that comes from afar: in the very tables that one here has."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Self

from kagflow.cli.board import Board, line
from kagflow.cli.rows import Row, Rows
from kagflow.cli.told import BEGIN, OVER
from kagflow.output import Output
from kagflow.progress import NEWS, read_news
from kagflow.redaction import redact

# A line that holds half of a piece of news waits for the other half; no news is as long as this.
LONGEST = 1 << 16


class Watch:
    """Take a log's lines as notes: news go to the table of their training, all else is said.

    One training under way has a board, several have a row each. Other pieces of work have their
    bar as everywhere. An epoch that is told again, by a log that came twice, is not shown again.
    """

    def __init__(self, out: Output, classes: Sequence[str]) -> None:
        self._out, self._classes, self._bars = out, tuple(classes), out.progress()
        self._seats: dict[str, Board | Row] = {}
        self._rows: Rows | None = None
        self._shown: dict[tuple[str, int], Mapping[str, Any]] = {}
        self._half = ""

    def __enter__(self) -> Self:
        """Begin to watch."""
        return self

    def __exit__(self, *_: object) -> None:
        """Give the terminal back, with the tables as they stand."""
        self.finish()

    def start(self, label: str, total: float | None = None, unit: str = "") -> None:
        """Begin a piece of work here, which ends what was watched."""
        self._leave()
        self._bars.start(label, total, unit)

    def advance(self, n: float = 1) -> None:
        """Count `n` more units as done."""
        self._bars.advance(n)

    def show(self, figures: Mapping[str, Any], *, whole: bool = False) -> None:
        """Take no figures: those of a training come in its log."""

    def note(self, text: str) -> None:
        """Take one line: news, half of one, or words."""
        held, self._half = self._half, ""
        if held and self._took(held + text):
            return
        if held:
            self._say(held)
        if self._took(text):
            return
        if text.startswith(NEWS) and read_news(text) is None and len(text) < LONGEST:
            self._half = text
        else:
            self._say(text)

    def finish(self) -> None:
        """End the piece of work, and what was watched with it."""
        if self._half:
            held, self._half = self._half, ""
            self._say(held)
        self._leave()
        self._bars.finish()

    def _took(self, text: str) -> bool:
        """Pass a line on to the table of its training; tell whether it was news."""
        from kagflow.learn.relay import replay

        news = read_news(text)
        if news is None:
            return False
        if news["what"] in (BEGIN, OVER):
            (self._seat if news["what"] == BEGIN else self._close)(news["of"])
            return True
        try:
            if news["what"] == "show":
                # What cannot be written in a line cannot be drawn either.
                line(news["figures"], self._classes)
            if self._is_shown(news):
                return True
            return replay(news, self._seat(news["of"]), None)
        except (KeyError, TypeError, ValueError):
            return False

    def _is_shown(self, news: Mapping[str, Any]) -> bool:
        if news["what"] != "show" or not news["whole"]:
            return False
        figures = news["figures"]
        before = self._shown.get((news["of"], figures["epoch"]))
        self._shown[news["of"], figures["epoch"]] = figures
        return bool(before == figures)

    def _seat(self, title: str) -> Board | Row:
        """Return the table of a training; the second one at a time makes rows of them."""
        if title not in self._seats:
            if not self._seats:
                self._bars.hide()
                self._seats[title] = Board(self._out, title, self._classes)
            else:
                rows = self._rows or self._lay_rows()
                self._seats[title] = rows.open(title)
        return self._seats[title]

    def _lay_rows(self) -> Rows:
        self._rows = Rows(self._out, self._classes).__enter__()
        for title, board in list(self._seats.items()):
            if isinstance(board, Board):
                board.clear()
                row = self._seats[title] = self._rows.open(title)
                if board.label:
                    row.start(board.label, board.total, "steps")
                    row.advance(board.done)
        return self._rows

    def _close(self, title: str) -> None:
        seat = self._seats.pop(title, None)
        if isinstance(seat, Board):
            seat.__exit__()
        elif seat is not None and self._rows is not None:
            self._rows.close(seat)
        if not self._seats and self._rows is not None:
            self._rows.__exit__()
            self._rows = None

    def _leave(self) -> None:
        for title in list(self._seats):
            self._close(title)

    def _say(self, text: str) -> None:
        words = redact(text)
        if self._rows is not None:
            self._rows.say(words)
            return
        for seat in self._seats.values():
            if isinstance(seat, Board):
                seat.note(words)
                return
        self._bars.note(words)

"""Watch several trainings at once: a row for each on a terminal, plain lines elsewhere."""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Self

from kagflow.cli import words
from kagflow.cli.board import CLASSES_SHOWN, HEARTBEAT, line
from kagflow.output import Output

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.live import Live


class Rows:
    """Draw the rows of the trainings under way; each is told of by its own thread."""

    def __init__(self, out: Output, classes: Sequence[str]) -> None:
        self._out, self.classes = out, tuple(classes)[:CLASSES_SHOWN]
        self._rows: list[Row] = []
        self._lock = threading.Lock()
        self._live: Live | None = None

    def __enter__(self) -> Self:
        """Take the terminal, where there is one."""
        if self._out.live:
            from rich.live import Live

            self._live = Live(get_renderable=self._render, console=self._out.console)
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Give the terminal back."""
        if self._live is not None:
            self._live.stop()
            self._live = None

    def open(self, title: str) -> Row:
        """Begin a row."""
        row = Row(self, title)
        with self._lock:
            self._rows.append(row)
        return row

    def close(self, row: Row) -> None:
        """End a row."""
        with self._lock:
            self._rows.remove(row)

    def say(self, text: str) -> None:
        """Say one line, above the rows."""
        with self._lock:
            if self._live is not None:
                self._live.console.print(text, highlight=False, markup=False, soft_wrap=True)
            else:
                self._out.say(text)

    @property
    def live(self) -> bool:
        """Whether rows are drawn."""
        return self._live is not None

    def _render(self) -> RenderableType:
        from rich.progress_bar import ProgressBar
        from rich.table import Table
        from rich.text import Text

        table = Table.grid(padding=(0, 1))
        with self._lock:
            rows = list(self._rows)
        for row in rows:
            bar = ProgressBar(total=row.total or 1, completed=row.done, width=30)
            table.add_row(Text(f"  {row.title}"), Text(row.label), bar, Text(row.told()))
        return table


class Row:
    """Take one training's news as its progress."""

    def __init__(self, rows: Rows, title: str) -> None:
        self.title, self.label, self.total, self.done = title, "starting", 0.0, 0.0
        self._rows, self._unit = rows, ""
        self._figures: Mapping[str, Any] = {}
        self._began = self._said = time.monotonic()

    def start(self, label: str, total: float | None = None, unit: str = "") -> None:
        """Begin a piece of work."""
        self.label, self.total, self.done, self._unit = label, total or 0.0, 0.0, unit
        self._began = time.monotonic()

    def advance(self, n: float = 1) -> None:
        """Count `n` more units as done."""
        self.done += n

    def show(self, figures: Mapping[str, Any], *, whole: bool = False) -> None:
        """Take the figures of the epoch under way, or of one that is done."""
        self._figures = figures
        if whole:
            self._say(line(figures, self._rows.classes))
        elif not self._rows.live and time.monotonic() - self._said > HEARTBEAT:
            self._say(f"{self.label}, {self.done:.0f} of {self.total:.0f} steps: {self.told()}")

    def note(self, text: str) -> None:
        """Say one line."""
        self._say(text)

    def finish(self) -> None:
        """End the piece of work; an epoch's line comes when its figures do."""
        if self.label and self._unit != "steps":
            self._say(f"{self.label}: {time.monotonic() - self._began:.1f} s")
        self.label = ""

    def told(self) -> str:
        """Say in short how the training stands."""
        parts = [f"{self.done:.0f}/{self.total:.0f} {self._unit}"] if self.total else []
        figures = self._figures
        parts += [f"loss {figures['loss']:.4f}"] if "loss" in figures else []
        left = figures.get("seconds_left")
        return ", ".join(parts + ([f"{words.span(left)} left"] if left else []))

    def _say(self, text: str) -> None:
        self._said = time.monotonic()
        self._rows.say(f"  {self.title}: {text}")

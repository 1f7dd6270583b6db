"""Data on stdout, talk on stderr; `--json` turns the data into one JSON object."""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

from kagflow.errors import KagflowError
from kagflow.redaction import redact

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress as RichBars
    from rich.progress import TaskID

SCHEMA = 1
PIPE_COLUMNS = 160


class Output:
    """Print results, tables, remarks and errors in the form the caller asked for."""

    def __init__(self, *, json_mode: bool = False, quiet: bool = False) -> None:
        self.json_mode = json_mode
        self.quiet = quiet

    def result(self, value: Mapping[str, Any], text: str = "") -> None:
        """Print a command's result: `value` as JSON, or `text`."""
        if self.json_mode:
            print(redact(json.dumps({"schema": SCHEMA, **value}, default=str)), file=sys.stdout)  # noqa: T201 - the one door to stdout
        elif text:
            self._console(stderr=False).print(
                redact(text), highlight=False, markup=False, soft_wrap=True
            )

    def table(self, title: str, columns: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
        """Print a table on stdout; nothing under --json, where `result` carries the same data."""
        if self.json_mode:
            return
        from rich import box
        from rich.table import Table
        from rich.text import Text

        # A table of two columns is a list of facts, not of figures.
        pairs = len(columns) == 2
        named = any(columns)
        style = box.SIMPLE_HEAD if named else box.SIMPLE
        table = Table(box=style, show_header=named)
        for number, column in enumerate(columns):
            side: Literal["left", "right"] = "right" if number and named and not pairs else "left"
            table.add_column(column, justify=side, overflow="fold")
        for row in rows:
            # As Text, since a run's name may hold brackets that rich would read as its own.
            table.add_row(*(Text("" if cell is None else redact(str(cell))) for cell in row))
        console = self._console(stderr=False)
        if title:
            # Not as the table's own, which is folded where the table is narrower.
            console.print(Text(redact(title), style="italic"), soft_wrap=True)
        console.print(table)

    def holds(self, columns: Sequence[str], rows: Sequence[Sequence[object]]) -> bool:
        """Tell whether a table of so many columns stays unfolded in the terminal's width."""
        widths = (
            max(len(str(cell)) for cell in column) for column in zip(columns, *rows, strict=True)
        )
        return sum(width + 3 for width in widths) <= self._console(stderr=False).width

    def bar(self, parts: Sequence[tuple[str, float, str]], *, width: int = 60) -> None:
        """Draw (label, amount, colour) on stdout as one bar and its legend; nothing under --json.

        The last part is what is free. A terminal shows colours, anything else letters.
        """
        whole = sum(max(amount, 0.0) for _, amount, _ in parts)
        if self.json_mode or whole <= 0:
            return
        from rich.text import Text

        console = self._console(stderr=False)
        marks = ("█",) * (len(parts) - 1) + ("░",) if console.is_terminal else "#+~-=o*"
        marks = (*marks[: len(parts) - 1], marks[-1] if console.is_terminal else ".")
        line, legend, reached, shown = Text("  ["), Text("  "), 0.0, 0
        for (label, amount, colour), mark in zip(parts, marks, strict=True):
            reached += max(amount, 0.0)
            cells = round(width * reached / whole) - shown
            shown += cells
            line.append(mark * cells, style=colour)
            if amount > 0:
                legend.append(mark, style=colour).append(f" {label}   ")
        console.print(line.append("]"))
        console.print(legend)

    def say(self, text: str) -> None:
        """Remark on what is being done."""
        if not self.quiet:
            self._console(stderr=True).print(
                redact(text), highlight=False, markup=False, soft_wrap=True
            )

    def warn(self, text: str) -> None:
        """Warn; --quiet does not silence it."""
        self._console(stderr=True).print(
            f"warning: {redact(text)}",
            style="yellow",
            highlight=False,
            markup=False,
            soft_wrap=True,
        )

    def error(self, error: KagflowError) -> None:
        """Print what went wrong and the way to mend it."""
        message, hint = redact(error.message), redact(error.hint)
        console = self._console(stderr=True)
        console.print(
            f"error: {message}",
            style="bold red",
            highlight=False,
            markup=False,
            soft_wrap=True,
        )
        if hint:
            console.print(f"  -> {hint}", highlight=False, markup=False, soft_wrap=True)
        if self.json_mode:
            told = {"error": message, "hint": hint, "exit_code": error.exit_code}
            self.result(told)

    def progress(self) -> Bars:
        """Return a progress bar for one stage's work."""
        return Bars(self)

    @property
    def console(self) -> Console:
        """Where talk goes."""
        return self._console(stderr=True)

    @property
    def live(self) -> bool:
        """Whether talk may be drawn over: a terminal, and not --quiet."""
        return not self.quiet and self.console.is_terminal

    def _console(self, *, stderr: bool) -> Console:
        from rich.console import Console

        console = Console(stderr=stderr)
        if not console.is_terminal and "COLUMNS" not in os.environ:
            # A file or a pipe has no width of its own; tables must not be cut in it.
            console.width = PIPE_COLUMNS
        return console


class Bars:
    """Show a room's progress: live bars on a terminal, one line a step elsewhere."""

    def __init__(self, out: Output) -> None:
        self._out = out
        self._bars: RichBars | None = None
        self._task: TaskID | None = None
        self._label = ""
        self._began = 0.0

    def start(self, label: str, total: float | None = None, unit: str = "") -> None:
        """Begin a piece of work; an unfinished one before it ends here."""
        self.finish()
        self._label, self._began = label, time.monotonic()
        if self._out.quiet:
            return
        self._bars = _rich_bars(unit)
        if not self._bars.console.is_terminal:
            self._bars = None
            return
        self._bars.start()
        self._task = self._bars.add_task(label, total=total)

    def advance(self, n: float = 1) -> None:
        """Count `n` more units as done."""
        if self._bars is not None and self._task is not None:
            self._bars.advance(self._task, n)

    def show(self, figures: Mapping[str, Any], *, whole: bool = False) -> None:
        """Leave figures to those who know them: kagflow.cli.board does."""

    def note(self, text: str) -> None:
        """Say one line beside the bar."""
        if self._bars is not None and not self._out.quiet:
            self._bars.console.print(redact(text), highlight=False, markup=False, soft_wrap=True)
        else:
            self._out.say(text)

    def hide(self) -> None:
        """Leave the terminal to another; the piece of work goes on, and ends with its line."""
        if self._bars is not None:
            self._bars.stop()
        self._bars, self._task = None, None

    def finish(self) -> None:
        """End the piece of work and leave one line with its time."""
        if not self._label:
            return
        if self._bars is not None:
            self._bars.stop()
        self._out.say(f"  {self._label}: {time.monotonic() - self._began:.1f} s")
        self._bars, self._task, self._label = None, None, ""


def _rich_bars(unit: str) -> RichBars:
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        DownloadColumn,
        MofNCompleteColumn,
        Progress,
        ProgressColumn,
        TextColumn,
        TimeRemainingColumn,
        TransferSpeedColumn,
    )

    counted: list[ProgressColumn] = (
        [DownloadColumn(), TransferSpeedColumn()] if unit == "B" else [MofNCompleteColumn()]
    )
    return Progress(
        TextColumn("  {task.description}"),
        BarColumn(),
        *counted,
        TextColumn("" if unit == "B" else unit),
        TimeRemainingColumn(),
        console=Console(stderr=True),
        transient=True,
    )

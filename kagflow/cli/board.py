"""Watch a training: a live table of its epochs on a terminal, plain lines elsewhere."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Self

from kagflow.cli import words
from kagflow.output import Output

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.live import Live

Figures = Mapping[str, Any]

# Lines of a terminal that stay free of epochs.
MARGIN = 8
# More classes than this make a table too wide to read.
CLASSES_SHOWN = 8
# In a log a sign of life comes this often, in seconds.
HEARTBEAT = 60.0


class Board:
    """Take a training's news as its progress; work that is no epoch has its bar as everywhere."""

    def __init__(self, out: Output, title: str, classes: Sequence[str]) -> None:
        self.title, self.classes = title, tuple(classes)[:CLASSES_SHOWN]
        self.epochs: list[Figures] = []
        self.now: Figures = {}
        self.label, self.total, self.done = "", 0.0, 0.0
        self._out, self._bars = out, out.progress()
        self._live: Live | None = None
        self._said = time.monotonic()

    def __enter__(self) -> Self:
        """Begin to watch."""
        return self

    def __exit__(self, *_: object) -> None:
        """Give the terminal back, with the table as it stands."""
        self._leave()
        self._bars.finish()

    def start(self, label: str, total: float | None = None, unit: str = "") -> None:
        """Begin an epoch, whose unit is steps, or another piece of work."""
        if unit != "steps":
            self._leave()
            self.label = ""
            self._bars.start(label, total, unit)
            return
        self._bars.finish()
        self.label, self.total, self.done, self.now = label, total or 0.0, 0.0, {}
        self._said = time.monotonic()
        if self._live is None and self._out.live:
            from rich.live import Live

            console = self._out.console
            self._live = Live(get_renderable=lambda: render(self, console.height), console=console)
            self._live.start()

    def advance(self, n: float = 1) -> None:
        """Count `n` more units as done."""
        if self.label:
            self.done += n
        else:
            self._bars.advance(n)

    def show(self, figures: Figures, *, whole: bool = False) -> None:
        """Take the figures of the epoch under way, or of one that is done."""
        if whole:
            # A session that was lost is made up for: its last epochs are told again.
            self.epochs = [one for one in self.epochs if one["epoch"] < figures["epoch"]]
            self.epochs.append(figures)
            self.label, self.now = "", {}
            if self._live is None:
                self._out.say(f"  {line(figures, self.classes)}")
            return
        if not figures["images_per_second"]:
            # No step has been judged yet.
            return
        self.now = figures
        if self._live is None and time.monotonic() - self._said > HEARTBEAT:
            self._out.say(
                f"  {self.label}, {self.done:.0f} of {self.total:.0f} steps: "
                f"{line(figures, self.classes).partition(': ')[2]}"
            )
            self._said = time.monotonic()

    def note(self, text: str) -> None:
        """Say one line, above the table where there is one."""
        if self._live is not None:
            self._live.console.print(text, highlight=False, markup=False, soft_wrap=True)
        else:
            self._bars.note(text)

    def finish(self) -> None:
        """End the piece of work; an epoch's held-out images are looked at before its line comes."""
        self._bars.finish()

    def clear(self) -> None:
        """Give the terminal to another table, leaving what is worth keeping of this one."""
        self._leave(transient=not self.epochs)

    def _leave(self, *, transient: bool = False) -> None:
        if self._live is not None:
            self._live.transient = transient
            self._live.stop()
            self._live = None


def line(figures: Figures, classes: Sequence[str]) -> str:
    """Write an epoch's figures in one line."""
    parts = [f"loss {figures['loss']:.4f}"]
    if "val_score" in figures:
        parts.append(f"score {figures['val_score']:.4f}")
    each = zip(classes, figures.get("val_dice", ()), strict=False)
    if dice := ", ".join(f"{name} {_dice(value)}" for name, value in each):
        parts.append(f"Dice of {dice}")
    parts.append(f"{_speed(figures)} images/s, waiting {figures['wait_share']:.0%}")
    if "gpu_mib" in figures:
        parts.append(f"GPU {_gigabytes(figures)} GB")
    if figures.get("seconds_left"):
        parts.append(f"{words.span(figures['seconds_left'])} left")
    return f"epoch {figures['epoch'] + 1}: " + "; ".join(parts)


def render(board: Board, height: int) -> RenderableType:
    """Draw the last epochs, the one under way and its bar."""
    from rich.console import Group
    from rich.progress_bar import ProgressBar
    from rich.table import Table
    from rich.text import Text

    seen = board.epochs or board.now
    parts: list[RenderableType] = [_table(board, max(height - MARGIN, 3))] if seen else []
    if board.label:
        left = board.now.get("seconds_left")
        glance = board.done >= board.total
        told = f"{board.done:.0f}/{board.total:.0f} steps"
        told += "   looking at held-out images" if glance else ""
        told += f"   {words.span(left)} left" if left else ""
        row = Table.grid(padding=(0, 1))
        bar = ProgressBar(total=board.total or 1, completed=board.done, width=40)
        row.add_row(Text(f"  {board.label}"), bar, Text(told))
        parts.append(row)
    return Group(*parts)


def _table(board: Board, room: int) -> RenderableType:
    from rich import box
    from rich.table import Table
    from rich.text import Text

    rows = [*board.epochs, *([board.now] if board.now else [])]
    classes = board.classes if any(one.get("val_dice") for one in rows) else ()
    table = Table(title=Text(board.title), title_justify="left", box=box.SIMPLE_HEAD)
    columns = ["epoch", "loss", "score", *(f"Dice {name}" for name in classes)]
    columns += ["images/s", "waiting"]
    columns += ["GPU GB"] if any("gpu_mib" in one for one in rows) else []
    for name in columns:
        table.add_column(Text(name), justify="right")
    for one in rows[-room:]:
        dice = [_dice(value) for value in one.get("val_dice", ())][: len(classes)]
        cells = [
            str(one["epoch"] + 1),
            f"{one['loss']:.4f}",
            f"{one['val_score']:.4f}" if "val_score" in one else "",
            *(dice or [""] * len(classes)),
            _speed(one),
            f"{one['wait_share']:.0%}",
            _gigabytes(one) if "gpu_mib" in one else "",
        ]
        table.add_row(*cells[: len(columns)], style="bold" if one is board.now else "")
    return table


def _dice(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}"


def _speed(figures: Figures) -> str:
    value = figures["images_per_second"]
    return f"{value:.1f}" if value < 100 else f"{value:.0f}"


def _gigabytes(figures: Figures) -> str:
    return f"{figures['gpu_mib'] * 2**20 / 1e9:.1f}"

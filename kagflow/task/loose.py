"""Read a CSV file that may be wrong in any way: what can be read, and what is wrong where."""

from __future__ import annotations

import csv
from dataclasses import dataclass
from typing import TYPE_CHECKING

from kagflow.task.table import BOM, quoted_rows

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    Row = tuple[int, list[str]]


@dataclass(frozen=True)
class Fault:
    """Say what is wrong on a line of a CSV; `row` counts from 1, the header, and 0 is the file.

    `kind` is one word: file, encoding, bom, crlf, quotes, header, cells, class, rle, extra, twice,
    missing or order.
    """

    row: int
    kind: str
    what: str

    def __str__(self) -> str:
        """Say it in one line."""
        return f"row {self.row}: {self.what}" if self.row else self.what


@dataclass(frozen=True)
class Loose:
    """Hold a file's header, its further rows with their line, and the faults of its bytes."""

    header: tuple[str, ...]
    rows: tuple[tuple[int, tuple[str, ...]], ...]
    faults: tuple[Fault, ...]


def read_loose(path: Path) -> Loose:
    """Read as far as it goes; the header is () where there is none."""
    try:
        content = path.read_bytes()
    except OSError as fault:
        missing = isinstance(fault, FileNotFoundError)
        what = "does not exist" if missing else f"cannot be read: {fault.strerror}"
        return Loose((), (), (Fault(0, "file", f"{path} {what}"),))
    faults = list(_byte_faults(content))
    text = content.removeprefix(BOM).decode("utf-8", "replace")
    rows: list[Row] = []
    try:
        rows.extend(_rows(text.replace("\r\n", "\n").replace("\r", "\n").rstrip("\n")))
    except csv.Error as fault:
        line = rows[-1][0] + 1 if rows else 1
        faults.append(Fault(line, "quotes", f"{fault}; what follows was not checked"))
    if not rows:
        return Loose((), (), (*faults, Fault(0, "file", f"{path} is empty")))
    header = tuple(rows[0][1])
    return Loose(header, tuple((line, tuple(cells)) for line, cells in rows[1:]), tuple(faults))


def _rows(text: str) -> Iterator[Row]:
    if not text:
        return
    if '"' in text:
        yield from quoted_rows(text)
    else:
        yield from enumerate((line.split(",") for line in text.split("\n")), start=1)


def _byte_faults(content: bytes) -> Iterator[Fault]:
    if content.startswith(BOM):
        yield Fault(1, "bom", "starts with a byte order mark")
    if (at := content.find(b"\r")) >= 0:
        end = "CRLF" if content[at : at + 2] == b"\r\n" else "CR"
        yield Fault(_line(content, at), "crlf", f"lines end with {end}, not LF")
    try:
        content.decode("utf-8")
    except UnicodeDecodeError as fault:
        yield Fault(_line(content, fault.start), "encoding", f"byte {fault.start} is not UTF-8")


def _line(content: bytes, at: int) -> int:
    before = content[:at].replace(b"\r\n", b"\n").replace(b"\r", b"\n")
    return before.count(b"\n") + 1

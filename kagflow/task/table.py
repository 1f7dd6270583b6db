"""Read and write the CSV files of a competition, every cell as text."""

from __future__ import annotations

import csv
import io
from dataclasses import dataclass
from typing import TYPE_CHECKING

from kagflow import durable
from kagflow.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from pathlib import Path

BOM = b"\xef\xbb\xbf"


@dataclass(frozen=True)
class Table:
    """Hold a CSV file; `rows[i]` stands on line i + 2 of the file."""

    path: Path
    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]

    def column(self, name: str) -> tuple[str, ...]:
        """Return the cells of one column; raise DataError where it is missing."""
        if name not in self.header:
            raise DataError(
                f"{self.path}: no column {name!r}; it has {', '.join(self.header)}",
                hint="Check the column names in competition.yaml.",
            )
        at = self.header.index(name)
        return tuple(row[at] for row in self.rows)


def read_table(path: Path) -> Table:
    """Read a CSV with a header; a byte order mark and CRLF are accepted.

    Raises DataError where the file is missing, empty, not UTF-8, or a row has too few or too
    many cells.
    """
    lines = _cells(path, _text(path))
    if not lines:
        raise DataError(f"{path} is empty", hint="Fetch or write the file again.")
    header = lines[0]
    for number, row in enumerate(lines[1:], start=2):
        if len(row) != len(header):
            raise DataError(
                f"{path}, line {number}: {len(row)} cells where the header has {len(header)}",
                hint="Every line needs one cell for each column; an empty cell is nothing at all.",
            )
    return Table(path, tuple(header), tuple(map(tuple, lines[1:])))


def write_table(path: Path, header: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Write a CSV whole or not at all: UTF-8, no byte order mark, lines end with a line feed."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(header)
    writer.writerows(rows)
    durable.write_text(path, text.getvalue())


def _text(path: Path) -> str:
    try:
        return path.read_bytes().removeprefix(BOM).decode("utf-8")
    except FileNotFoundError:
        raise DataError(f"{path} does not exist", hint="Fetch the competition again.") from None
    except UnicodeDecodeError as fault:
        raise DataError(
            f"{path} is not UTF-8 text (byte {fault.start})", hint="Save it as UTF-8 CSV."
        ) from None


def _cells(path: Path, text: str) -> list[list[str]]:
    lines = text.replace("\r\n", "\n").rstrip("\n").split("\n")
    if lines == [""]:
        return []
    if '"' not in text:
        return [line.split(",") for line in lines]
    try:
        return [cells for _, cells in quoted_rows("\n".join(lines))]
    except csv.Error as fault:
        raise DataError(f"{path}: {fault}", hint="Check the quotes in the file.") from None


def quoted_rows(text: str) -> Iterator[tuple[int, list[str]]]:
    """Yield (line on which it begins, cells) of every row of a CSV that may hold quotes.

    Raises csv.Error where the quotes make no sense.
    """
    # A mask may be longer than the 128 kB that the module reads by default.
    before = csv.field_size_limit(max(len(text), 1))
    try:
        reader = csv.reader(io.StringIO(text, newline=""), strict=True)
        line = 1
        for cells in reader:
            yield line, cells or [""]
            line = reader.line_num + 1
    finally:
        csv.field_size_limit(before)

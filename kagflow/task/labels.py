"""Read what is true of the training images."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from kagflow.errors import DataError
from kagflow.task import forms
from kagflow.task.table import Table, read_table

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping
    from pathlib import Path

    from kagflow.task.spec import TaskSpec


Labels = dict[str, dict[int, str]]


@dataclass(frozen=True)
class BadRow:
    """Name a row that cannot be used; `image_id` is "" where the row names none."""

    line: int
    image_id: str
    reason: str
    hint: str


def read_labels(
    csv: Path,
    spec: TaskSpec,
    *,
    sizes: Mapping[str, tuple[int, int]] | None = None,
    only: Collection[str] | None = None,
) -> Labels:
    """Return {image id: {class index: run lengths}} from a label CSV of either form.

    Images whose rows are all empty have {}, images without rows are absent; for classification
    the run lengths are "". `sizes` gives (height, width) for a check of the range; rows of images
    that `only` lacks are not looked at.
    Raises DataError with file and line for a bad row, and where an image and class come twice.
    """
    return rows_by_image(read_table(csv), spec, sizes=sizes, only=only)


def rows_by_image(
    table: Table,
    spec: TaskSpec,
    *,
    sizes: Mapping[str, tuple[int, int]] | None = None,
    only: Collection[str] | None = None,
) -> Labels:
    """Return the rows of a table that is already read, as `read_labels` does."""
    labels, bad = check_rows(table, spec, sizes=sizes, only=only)
    if bad:
        raise row_fault(table.path, bad[0])
    return labels


def check_rows(
    table: Table,
    spec: TaskSpec,
    *,
    sizes: Mapping[str, tuple[int, int]] | None = None,
    only: Collection[str] | None = None,
) -> tuple[Labels, list[BadRow]]:
    """Return what the good rows say, and every bad one.

    Raises DataError where the columns are not those of the competition.
    """
    form = forms.detect(table.header, spec, table.path)
    labels: Labels = {}
    bad: list[BadRow] = []
    seen: set[tuple[str, str | None]] = set()
    for line, row in enumerate(table.rows, start=2):
        key = form.split(row)[:2]
        if only is not None and key[0] not in only:
            continue
        try:
            image_id, found = form.read(row, sizes)
            if key in seen:
                _comes_twice(key)
        except DataError as fault:
            bad.append(BadRow(line, key[0], fault.message, fault.hint))
            continue
        seen.add(key)
        labels.setdefault(image_id, {}).update(found)
    return labels, bad


def strangers(table: Table, spec: TaskSpec, images: Collection[str]) -> list[tuple[int, str]]:
    """Return (line, image id) of every row whose image is not among `images`."""
    form = forms.detect(table.header, spec, table.path)
    named = ((line, form.split(row)[0]) for line, row in enumerate(table.rows, start=2))
    return [(line, image_id) for line, image_id in named if image_id not in images]


def row_fault(path: Path, bad: BadRow) -> DataError:
    """Return the error that names a bad row."""
    return DataError(f"{path}, line {bad.line}: {bad.reason}", hint=bad.hint)


def _comes_twice(key: tuple[str, str | None]) -> None:
    raise DataError(
        f"{' class '.join(filter(None, key))} comes twice",
        hint="Keep one row for each image and class.",
    )

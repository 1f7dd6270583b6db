"""Read what is true of the training images."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kagflow.errors import DataError
from kagflow.task import forms
from kagflow.task.table import Table, read_table

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from kagflow.task.spec import TaskSpec


def read_labels(
    csv: Path, spec: TaskSpec, *, sizes: Mapping[str, tuple[int, int]] | None = None
) -> dict[str, dict[int, str]]:
    """Return {image id: {class index: run lengths}} from a label CSV of either form.

    Images whose rows are all empty have {}, images without rows are absent; for classification
    the run lengths are "". `sizes` gives (height, width) for a check of the range.
    Raises DataError with file and line for a bad row, and where an image and class come twice.
    """
    return rows_by_image(read_table(csv), spec, sizes=sizes)


def rows_by_image(
    table: Table, spec: TaskSpec, *, sizes: Mapping[str, tuple[int, int]] | None = None
) -> dict[str, dict[int, str]]:
    """Return the rows of a table that is already read, as `read_labels` does."""
    form = forms.detect(table.header, spec, table.path)
    labels: dict[str, dict[int, str]] = {}
    seen: set[tuple[str, str | None]] = set()
    for line, row in enumerate(table.rows, start=2):
        key = form.split(row)[:2]
        try:
            image_id, found = form.read(row, sizes)
        except DataError as fault:
            raise DataError(f"{table.path}, line {line}: {fault}", hint=fault.hint) from None
        if key in seen:
            raise DataError(
                f"{table.path}, line {line}: {' class '.join(filter(None, key))} comes twice",
                hint="Keep one row for each image and class.",
            )
        seen.add(key)
        labels.setdefault(image_id, {}).update(found)
    return labels

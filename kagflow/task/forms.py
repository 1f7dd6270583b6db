"""The three shapes in which Kaggle writes labels and predictions, read and written alike.

joined: `ImageId_ClassId,EncodedPixels`; separate: `ImageId,ClassId,EncodedPixels` in any order of
columns; plain, for classification: `ImageId,<value column>` with labels separated by spaces.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from kagflow.errors import DataError
from kagflow.task import rle

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from kagflow.task.spec import TaskSpec
    from kagflow.task.table import Table

Key = tuple[str, str | None]


@dataclass(frozen=True)
class Form:
    """Hold how one file's rows are laid out; `header` may hold further columns."""

    spec: TaskSpec
    header: tuple[str, ...]
    joined: bool

    def split(self, row: tuple[str, ...]) -> tuple[str, str | None, str]:
        """Return (image id, class label or None for classification, value) of a row."""
        cell = dict(zip(self.header, row, strict=True))
        key = self.key(cell)
        assert key is not None  # a whole row has every column
        return *key, cell[self.spec.value_column]

    def key(self, cell: Mapping[str, str]) -> Key | None:
        """Return (image id, class label or None for classification) of {column: cell}.

        None where a column of the key is missing.
        """
        spec = self.spec
        columns = [spec.image_column, spec.class_column]
        if self.joined:
            columns = [spec.joined_column]
        elif spec.kind == "classification":
            columns = [spec.image_column]
        if any(column not in cell for column in columns):
            return None
        if self.joined:
            return self._split_key(cell[spec.joined_column])
        return cell[columns[0]], cell[columns[1]] if len(columns) > 1 else None

    def join(self, image_id: str, label: str | None, value: str) -> list[str]:
        """Return the row for a value, in this file's order of columns; further ones are empty."""
        cell = {
            self.spec.image_column: image_id,
            self.spec.class_column: label or "",
            self.spec.joined_column: f"{image_id}_{label}",
            self.spec.value_column: value,
        }
        return [cell.get(name, "") for name in self.header]

    def read(
        self, row: tuple[str, ...], sizes: Mapping[str, tuple[int, int]] | None = None
    ) -> tuple[str, dict[int, str]]:
        """Return (image id, {class index: run lengths}) of a row; classification values are "".

        Raises DataError on an unknown class, and on run lengths that break the grammar or leave
        the image, whose (height, width) comes from `sizes` where it is known.
        """
        image_id, label, value = self.split(row)
        if label is None:
            return image_id, dict.fromkeys(self._labels(image_id, value), "")
        found = self._class_index(image_id, label)
        size = sizes.get(image_id) if sizes else None
        pixels = size[0] * size[1] if size else None
        return image_id, ({found: value} if len(rle.runs(value, pixels=pixels)) else {})

    def _labels(self, image_id: str, value: str) -> list[int]:
        labels = value.split(" ") if value else []
        found = [self._class_index(image_id, label) for label in labels]
        if len(set(found)) != len(found):
            raise DataError(f"{image_id}: {value!r} names a class twice", hint="Name it once.")
        if self.spec.exclusive and len(found) > 1:
            raise DataError(
                f"{image_id}: {value!r} names {len(found)} classes", hint="An image has one class."
            )
        return found

    def _class_index(self, image_id: str, label: str) -> int:
        try:
            return self.spec.classes.index(label)
        except ValueError:
            raise DataError(
                f"{image_id}: unknown class {label!r}",
                hint=f"In competition.yaml the classes are {', '.join(self.spec.classes)}.",
            ) from None

    def _split_key(self, key: str) -> tuple[str, str]:
        # A class label may itself hold an underscore: the longest one that fits is meant.
        for label in sorted(self.spec.classes, key=len, reverse=True):
            if key.endswith(f"_{label}"):
                return key[: -len(label) - 1], label
        image_id, _, label = key.rpartition("_")
        return image_id, label


def detect(header: tuple[str, ...], spec: TaskSpec, path: Path) -> Form:
    """Find which form a header is; raise DataError naming the forms that are read."""
    joined = {spec.joined_column, spec.value_column}
    plain = {spec.image_column, spec.value_column}
    whole = plain if spec.kind == "classification" else plain | {spec.class_column}
    if len(set(header)) == len(header):
        if spec.kind == "segmentation" and joined <= set(header):
            return Form(spec, header, joined=True)
        if whole <= set(header):
            return Form(spec, header, joined=False)
    forms = f"{spec.image_column},{spec.value_column}"
    if spec.kind == "segmentation":
        forms = (
            f"{spec.image_column},{spec.class_column},{spec.value_column} or "
            f"{spec.joined_column},{spec.value_column}"
        )
    raise DataError(
        f"{path}: columns {','.join(header)[:200]!r} are not those of this competition",
        hint=f"Expected {forms}; column names are set in competition.yaml.",
    )


def name(key: Key | None) -> str:
    """Name a row to a person: its image, and its class where there is one."""
    if key is None:
        return "no image"
    image_id, label = (part if part is None or part.isprintable() else repr(part) for part in key)
    return f"{image_id or 'no image'}" + (f" class {label}" if label else "")


def keys(table: Table, spec: TaskSpec) -> dict[Key, int]:
    """Return {(image id, class label or None): line} of a file, the last line where one repeats."""
    form = detect(table.header, spec, table.path)
    return {form.split(row)[:2]: line for line, row in enumerate(table.rows, start=2)}

"""Read a solution: what is true of the images that a submission is scored on."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from kagflow.errors import DataError
from kagflow.task import forms
from kagflow.task.labels import check_rows, row_fault
from kagflow.task.table import Table, read_table

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

    from kagflow.task.forms import Form, Key
    from kagflow.task.labels import Labels
    from kagflow.task.spec import TaskSpec

PARTS = ("Public", "Private")
# Kaggle's own word for rows that a submission must hold and nobody scores.
IGNORED = "Ignored"
_FACTS = ("Usage", "Height", "Width")


@dataclass(frozen=True)
class Truth:
    """Hold a solution: {image id: {class index: run lengths}}, {} for a clean image.

    `parts` are the image ids by Usage, {} where the file has no such column; `sizes` (height,
    width) where known; `empty_rows` tells whether the file lists anything that is clean.
    """

    path: Path
    labels: Labels
    parts: Mapping[str, tuple[str, ...]]
    sizes: Mapping[str, tuple[int, int]]
    empty_rows: bool

    def keys(self, spec: TaskSpec) -> dict[Key, None]:
        """Return the rows that a submission must hold: every class of every image."""
        if spec.kind == "classification":
            return dict.fromkeys((image_id, None) for image_id in self.labels)
        return dict.fromkeys((image_id, one) for image_id in self.labels for one in spec.classes)

    def with_clean(self, image_ids: Iterable[str]) -> Truth:
        """Return the truth of these images too, as clean ones where it does not list them."""
        new = [image_id for image_id in image_ids if image_id not in self.labels]
        return replace(self, labels=self.labels | {image_id: {} for image_id in new})


def read_truth(path: Path, spec: TaskSpec) -> Truth:
    """Read a solution CSV of either form; further columns Usage, Height and Width are optional.

    A clean image may have one empty row a class, one in all, or a row without a class. Raises
    DataError with file and line for a row that is bad or says another thing of its image than the
    rows before.
    """
    table = read_table(path)
    form = forms.detect(table.header, spec, path)
    facts = _facts(table, form)
    sizes = _sizes(table, facts) or _one_size(facts, spec)
    labels, bad = check_rows(table, spec, sizes=sizes)
    for one in bad:
        if not _says_clean(form, table.rows[one.line - 2]):
            raise row_fault(path, one)
    empty = any(not form.split(row)[2] for row in table.rows)
    whole: Labels = {image_id: labels.get(image_id, {}) for image_id in facts}
    return Truth(path, whole, _parts(table, facts), sizes, empty)


def _says_clean(form: Form, row: tuple[str, ...]) -> bool:
    _, label, value = form.split(row)
    return label == "" and value == ""


def _facts(table: Table, form: Form) -> dict[str, tuple[int, dict[str, str]]]:
    """Return {image id: (line, its Usage, Height and Width)}, which all its rows must share."""
    columns = [name for name in _FACTS if name in table.header]
    found: dict[str, tuple[int, dict[str, str]]] = {}
    for line, row in enumerate(table.rows, start=2):
        cell = dict(zip(table.header, row, strict=True))
        image_id, told = form.split(row)[0], {name: cell[name] for name in columns}
        first, before = found.setdefault(image_id, (line, told))
        for name in columns:
            if told[name] != before[name]:
                raise DataError(
                    f"{table.path}, line {line}: {image_id} has {name} {told[name]!r}, "
                    f"in line {first} {before[name]!r}",
                    hint="All rows of an image share its Usage, Height and Width.",
                )
    return found


def _sizes(
    table: Table, facts: Mapping[str, tuple[int, Mapping[str, str]]]
) -> dict[str, tuple[int, int]]:
    if not {"Height", "Width"} <= set(table.header):
        return {}
    sizes = {}
    for image_id, (line, told) in facts.items():
        pair = told["Height"], told["Width"]
        if not all(cell.isascii() and cell.isdigit() and int(cell) for cell in pair):
            raise DataError(
                f"{table.path}, line {line}: {image_id} is {pair[0]!r} high and {pair[1]!r} wide",
                hint="Height and Width are whole pixels.",
            )
        sizes[image_id] = int(pair[0]), int(pair[1])
    return sizes


def _one_size(image_ids: Iterable[str], spec: TaskSpec) -> dict[str, tuple[int, int]]:
    if spec.height is None or spec.width is None:
        return {}
    return dict.fromkeys(image_ids, (spec.height, spec.width))


def _parts(
    table: Table, facts: Mapping[str, tuple[int, Mapping[str, str]]]
) -> dict[str, tuple[str, ...]]:
    if "Usage" not in table.header:
        return {}
    usage = {image_id: told["Usage"] for image_id, (_, told) in facts.items()}
    strange = sorted(set(usage.values()) - {*PARTS, IGNORED})
    if strange:
        raise DataError(f"{table.path}: Usage {strange}", hint="Write Public, Private or Ignored.")
    # A file with nothing but Ignored has a Usage all the same: no part of it is scored.
    return {part: tuple(i for i, used in usage.items() if used == part) for part in PARTS}

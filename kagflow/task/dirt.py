"""Find what is not as it should be among training images and labels, and name every case."""

from __future__ import annotations

import itertools
from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING

from kagflow.task import rle
from kagflow.task.surveyed import MEANS
from kagflow.task.table import write_table

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence
    from pathlib import Path

    from kagflow.task.index import Broken, ImageRow
    from kagflow.task.labels import BadRow, Labels
    from kagflow.task.spec import TaskSpec

HEADER = ("kind", "image_id", "other", "line", "detail")


@dataclass(frozen=True)
class Dirt:
    """Name one case: its kind (a key of MEANS), image, and the other image or the CSV's line."""

    kind: str
    image_id: str
    other: str = ""
    line: int | None = None
    detail: str = ""


def of_files(broken: Iterable[Broken]) -> list[Dirt]:
    """Return files that cannot be decoded."""
    return [Dirt("corrupt", one.image_id, detail=one.reason) for one in broken]


def of_rows(bad: Iterable[BadRow]) -> list[Dirt]:
    """Return label rows that cannot be used."""
    return [Dirt("label", row.image_id, line=row.line, detail=row.reason) for row in bad]


def of_images(rows: Iterable[ImageRow], spec: TaskSpec) -> Iterator[Dirt]:
    """Yield images whose size or depth is not the competition's."""
    for row in rows:
        wanted = (spec.height or row.height, spec.width or row.width)
        if (row.height, row.width) != wanted:
            detail = f"{row.height}x{row.width}, not {wanted[0]}x{wanted[1]}"
            yield Dirt("size", row.image_id, detail=detail)
        if row.bits > 8:
            yield Dirt("depth", row.image_id, detail=f"{row.bits} bits")


def of_groups(
    rows: Sequence[ImageRow], labels: Labels, clusters: Mapping[str, int]
) -> Iterator[Dirt]:
    """Yield every image that repeats an earlier one, or nearly does."""
    first_alike: dict[str, ImageRow] = {}
    groups: dict[int, list[ImageRow]] = defaultdict(list)
    for row in rows:
        groups[clusters[row.image_id]].append(row)
        earlier = first_alike.setdefault(row.pixels, row) if row.pixels else row
        if earlier is not row:
            same = labels.get(row.image_id, {}) == labels.get(earlier.image_id, {})
            yield Dirt("duplicate" if same else "conflict", row.image_id, earlier.image_id)
    for first, *others in groups.values():
        for row in others:
            if row.pixels != first.pixels or not row.pixels:
                apart = (row.phash ^ first.phash).bit_count()
                yield Dirt("near", row.image_id, first.image_id, detail=f"{apart} of 64 bits")


def of_masks(labels: Labels, spec: TaskSpec) -> Iterator[Dirt]:
    """Yield pairs of classes whose masks of one image share pixels."""
    for image_id, found in labels.items():
        for first, second in itertools.combinations(sorted(found), 2):
            shared = rle.intersection(found[first], found[second])
            if shared:
                names = f"{spec.classes[first]} and {spec.classes[second]}"
                detail = f"classes {names} share {shared} pixels"
                yield Dirt("overlap", image_id, detail=detail)


def write_dirt(path: Path, found: Iterable[Dirt]) -> None:
    """Write every case as CSV, the worst kinds first."""
    order = list(MEANS)
    cases = sorted(found, key=lambda one: (order.index(one.kind), one.image_id, one.line or 0))
    write_table(
        path,
        HEADER,
        ((one.kind, one.image_id, one.other, one.line or "", one.detail) for one in cases),
    )

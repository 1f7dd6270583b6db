"""What a survey leaves beside the data, and whether it is there; needs no image library."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from kagflow.errors import DataError, RefusedError
from kagflow.task.table import read_table

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

INDEX, FOLDS, DIRT = "index.csv", "folds.csv", "dirt.csv"
KEPT = (INDEX, FOLDS, DIRT)
WORK = ".index.work"
WRITTEN = frozenset({*KEPT, WORK})
# What dirt there may be, the worst first; the first two kinds make an image unusable.
MEANS = {
    "corrupt": "files that are no whole image",
    "label": "label rows that cannot be used",
    "size": "images of another size than competition.yaml says",
    "depth": "images of more than 8 bits, read as 8",
    "conflict": "equal images with different masks",
    "duplicate": "equal images with equal masks",
    "near": "near-duplicates, kept in one fold",
    "overlap": "pairs of masks of one image that overlap",
}

Policy = Literal["fail", "skip"]


@dataclass(frozen=True)
class Plan:
    """Say how to cut the folds, and what to do where an image or its labels cannot be used.

    Under `fail` nothing is cut; under `skip` such images are in no fold and no run.
    """

    folds: int
    seed: int = 0
    dirt: Policy = "fail"


@dataclass(frozen=True)
class Surveyed:
    """Say what index and folds hold; `dirt` counts the cases of each kind, listed in dirt.csv."""

    images: int
    clusters: int
    folds: int
    skipped: int
    already: bool
    dirt: Mapping[str, int] = field(default_factory=dict)


def standing(data: Path, plan: Plan) -> Surveyed | None:
    """Return what an earlier survey found, None where there was none.

    Raises RefusedError where it cut another number of folds: runs rest on them.
    """
    index, path = data / INDEX, data / FOLDS
    if not (index.is_file() and path.is_file()):
        return None
    table = read_table(path)
    try:
        there = 1 + max(map(int, table.column("fold")))
    except ValueError as fault:
        raise DataError(f"{path}: {fault}", hint="Fetch the competition again.") from None
    if there != plan.folds:
        raise RefusedError(
            f"{path} has {there} folds, the competition asks for {plan.folds}: earlier runs rest "
            "on the folds that are there",
            hint=f"set folds: {there} in competition.yaml, or move {path} away",
        )
    (data / WORK).unlink(missing_ok=True)
    dirt = count_dirt(data / DIRT)
    images = len(read_table(index).rows) + dirt.get("corrupt", 0)
    return Surveyed(
        images=images,
        clusters=len(set(table.column("cluster"))),
        folds=there,
        skipped=images - len(table.rows),
        already=True,
        dirt=dirt,
    )


def count_dirt(path: Path) -> dict[str, int]:
    """Count the cases of each kind in the list of what is not clean."""
    return dict(Counter(read_table(path).column("kind"))) if path.is_file() else {}

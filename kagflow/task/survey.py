"""Survey what was fetched, once: index every image, check every label row, cut the folds."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from kagflow.errors import DataError, RefusedError
from kagflow.task import dirt, folds, index, labels
from kagflow.task.index import Broken, ImageRow
from kagflow.task.table import read_table

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from kagflow.progress import Progress
    from kagflow.task.dirt import Dirt
    from kagflow.task.labels import BadRow, Labels
    from kagflow.task.spec import TaskSpec

INDEX, FOLDS, DIRT = "index.csv", "folds.csv", "dirt.csv"
KEPT = (INDEX, FOLDS, DIRT)
WORK = ".index.work"
WRITTEN = frozenset({*KEPT, WORK})

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


def survey(
    data: Path, spec: TaskSpec, plan: Plan, *, version: str, progress: Progress | None = None
) -> Surveyed:
    """Write index.csv, dirt.csv and folds.csv (last) into `data`; what is there stays.

    A call that was cut short is continued: images that it saw are not decoded again unless
    `version`, which names the data, has changed. Raises DataError with file, line and pair for the
    first image or row that cannot be used, under the policy `fail`; RefusedError where other
    folds were cut before.
    """
    if (data / INDEX).is_file() and (data / FOLDS).is_file():
        return _standing(data, plan)
    _sweep(data)
    files = index.image_files(data / spec.train_images)
    work = data / WORK
    seen = index.look(files, work=work, version=version, progress=progress)
    rows = [one for one in seen if isinstance(one, ImageRow)]
    broken = [one for one in seen if isinstance(one, Broken)]
    known, bad = _check_labels(data, spec, rows, broken)
    spoilt = {one.image_id for one in broken} | {row.image_id for row in bad}
    found = [*dirt.of_files(broken), *dirt.of_rows(bad)]
    if found and plan.dirt == "fail":
        dirt.write_dirt(data / DIRT, found)
        raise _unusable(data, spec, broken, bad)
    good = [row for row in rows if row.image_id not in spoilt]
    kept = {name: classes for name, classes in known.items() if name not in spoilt}
    split = folds.make_folds(good, kept, spec, k=plan.folds, seed=plan.seed)
    found += _warnings(good, kept, spec, split)
    dirt.write_dirt(data / DIRT, found)
    index.write_index(data / INDEX, rows)
    folds.write_folds(data / FOLDS, split)
    work.unlink(missing_ok=True)
    return _counted(data, split, len(files), plan, already=False)


def _standing(data: Path, plan: Plan) -> Surveyed:
    path = data / FOLDS
    split = folds.read_folds(path)
    there = 1 + max(fold for _, fold in split.values())
    if there != plan.folds:
        raise RefusedError(
            f"{path} has {there} folds, the competition asks for {plan.folds}: earlier runs rest "
            "on the folds that are there",
            hint=f"set folds: {there} in competition.yaml, or move {path} away",
        )
    (data / WORK).unlink(missing_ok=True)
    return _counted(data, split, len(index.read_index(data / INDEX)), plan, already=True)


def _check_labels(
    data: Path, spec: TaskSpec, rows: list[ImageRow], broken: list[Broken]
) -> tuple[Labels, list[BadRow]]:
    table = read_table(data / spec.train_csv)
    sizes = {row.image_id: (row.height, row.width) for row in rows}
    known, bad = labels.check_rows(table, spec, sizes=sizes)
    there = sizes.keys() | {one.image_id for one in broken}
    for line, image_id in labels.strangers(table, spec, there):
        reason = f"{image_id}: there is no such image in {spec.train_images}"
        bad.append(labels.BadRow(line, image_id, reason, "Fetch the competition again."))
        known.pop(image_id, None)
    return known, sorted(bad, key=lambda row: row.line)


def _unusable(data: Path, spec: TaskSpec, broken: list[Broken], bad: list[BadRow]) -> DataError:
    if broken:
        fault = index.broken_fault(data / spec.train_images, broken[0])
    else:
        fault = labels.row_fault(data / spec.train_csv, bad[0])
    others = len(broken) + len(bad) - 1
    more = f" (and {others} more, listed in {data / DIRT})" if others else ""
    skip = "`dirt: skip` in competition.yaml leaves such images out."
    return DataError(fault.message + more, hint=f"{fault.hint} {skip}")


def _warnings(
    rows: list[ImageRow], known: Labels, spec: TaskSpec, split: folds.Folds
) -> list[Dirt]:
    clusters = {name: cluster for name, (cluster, _) in split.items()}
    found = [*dirt.of_images(rows, spec), *dirt.of_groups(rows, known, clusters)]
    if spec.kind == "segmentation":
        found += dirt.of_masks(known, spec)
    return found


def _counted(data: Path, split: folds.Folds, images: int, plan: Plan, *, already: bool) -> Surveyed:
    clusters = len({cluster for cluster, _ in split.values()})
    return Surveyed(
        images,
        clusters,
        plan.folds,
        skipped=images - len(split),
        already=already,
        dirt=dirt.count_dirt(data / DIRT),
    )


def _sweep(data: Path) -> None:
    for name in KEPT:
        for stray in data.glob(f".{name}.*.tmp"):
            stray.unlink(missing_ok=True)

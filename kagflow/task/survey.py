"""Survey what was fetched, once: index every image, check every label row, cut the folds."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kagflow.errors import DataError
from kagflow.task import dirt, folds, index, labels
from kagflow.task.index import Broken, ImageRow
from kagflow.task.surveyed import (
    DIRT,
    FOLDS,
    INDEX,
    KEPT,
    WORK,
    Plan,
    Surveyed,
    count_dirt,
    standing,
)
from kagflow.task.table import read_table

if TYPE_CHECKING:
    from pathlib import Path

    from kagflow.progress import Progress
    from kagflow.task.dirt import Dirt
    from kagflow.task.labels import BadRow, Labels
    from kagflow.task.spec import TaskSpec


def survey(
    data: Path, spec: TaskSpec, plan: Plan, *, version: str, progress: Progress | None = None
) -> Surveyed:
    """Write index.csv, dirt.csv and folds.csv (last) into `data`; what is there stays.

    A call that was cut short is continued: images that it saw are not decoded again unless
    `version`, which names the data, has changed. Raises DataError with file, line and pair for the
    first image or row that cannot be used, under the policy `fail`; RefusedError where other
    folds were cut before.
    """
    found_before = standing(data, plan)
    if found_before:
        return found_before
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
    return Surveyed(
        images=len(files),
        clusters=len({cluster for cluster, _ in split.values()}),
        folds=plan.folds,
        skipped=len(files) - len(split),
        already=False,
        dirt=count_dirt(data / DIRT),
    )


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


def _sweep(data: Path) -> None:
    for name in KEPT:
        for stray in data.glob(f".{name}.*.tmp"):
            stray.unlink(missing_ok=True)

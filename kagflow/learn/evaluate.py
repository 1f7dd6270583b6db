"""What runs are worth: their out-of-fold scores, pooled over the folds that have finished."""

from __future__ import annotations

import json
from collections.abc import Container, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from kagflow.errors import DataError
from kagflow.learn import perimage
from kagflow.learn.cache import data_hash
from kagflow.learn.evidence import gather, open_member
from kagflow.learn.perimage import PerImage
from kagflow.learn.search import default_counts
from kagflow.progress import Progress
from kagflow.task import metric
from kagflow.task.folds import read_folds
from kagflow.task.labels import read_labels
from kagflow.task.spec import TaskSpec

Facts = Mapping[str, Sequence[Mapping[str, Any]]]


@dataclass(frozen=True)
class RunRow:
    """Tell of a run what its folds wrote down; `score` and `floor` are means over images.

    `seconds` and `hours` are what training took in all, `seconds_per_image` what predicting an
    image takes with all the folds that there are, on `device`.
    """

    run: str
    predicts: str
    folds: tuple[int, ...]
    of_folds: int
    images: int
    score: float
    floor: float
    seconds: float
    hours: float
    seconds_per_image: float
    device: str


def finished_folds(run: Path) -> list[Path]:
    """List a run's fold folders that have a run.json, in the order of their numbers."""
    done = [file.parent for file in run.glob("fold*/run.json")]
    return sorted(done, key=lambda folder: int(read_run(folder)["fold"]))


def read_run(folder: Path) -> dict[str, Any]:
    """Read a fold's run.json; raises DataError where it is missing or damaged."""
    try:
        return dict(json.loads((folder / "run.json").read_text(encoding="utf-8")))
    except (OSError, ValueError):
        raise DataError(
            f"{folder} holds no finished training", hint="Give the train command again."
        ) from None


def list_runs(runs: Path) -> list[RunRow]:
    """List the runs with at least one finished fold, best score first."""
    folders = sorted(folder for folder in runs.glob("*") if folder.is_dir())
    rows = [_row(run.name, folds) for run in folders if (folds := finished_folds(run))]
    return sorted(rows, key=lambda row: (row.predicts, -row.score, row.run))


def check_data(facts: Facts, data: Path) -> None:
    """Raise DataError for runs, {run: its folds' run.json}, trained on other data than `data`."""
    here = data_hash(data)
    other = sorted(run for run, ones in facts.items() if any(one["data"] != here for one in ones))
    if other:
        raise DataError(
            f"{', '.join(other)}: trained on other data than {data} holds now",
            hint="Name runs of this data, or train again under another name=.",
        )


def per_image(
    run: Path,
    spec: TaskSpec,
    data: Path,
    *,
    only: Container[str] | None = None,
    progress: Progress | None = None,
) -> PerImage:
    """Return what each image that a run predicts out of fold is worth, at default rules.

    Nothing is tuned, so every score is of an image that took no part in its making; `only` looks
    at some of them. A gate of a segmentation competition is judged by which classes it sees. Raises
    DataError where no fold has finished, the run was trained on other data, or a store does not fit
    the data.
    """
    folders = finished_folds(run)
    if not folders:
        raise DataError(f"{run} has no finished fold", hint="Give the train command again.")
    facts = [read_run(folder) for folder in folders]
    check_data({run.name: facts}, data)
    judged = replace(spec, kind="classification") if facts[0]["predicts"] == "label" else spec
    folds = read_folds(data / "folds.csv")
    truth = read_labels(data / spec.train_csv, spec, only=folds)
    clusters = {
        name: cluster for name, (cluster, _) in folds.items() if only is None or name in only
    }
    store = open_member(folders, folds)
    # At default rules no component is dropped.
    evidence = gather([store], truth, judged, clusters=clusters, pieces=False, progress=progress)
    images = perimage.images_of(evidence.image_ids, folds)
    counts = default_counts(evidence)[[2, 1, 0]]
    return perimage.from_counts(run.name, spec.classes, images, counts, metric.load(spec))


def per_image_ensemble(file: Path, spec: TaskSpec) -> PerImage:
    """Return what each image of an ensemble is worth, cross-fitted, from beside its JSON.

    Raises DataError where the ensemble was made before these were kept.
    """
    beside = perimage.path_beside(file)
    if not beside.is_file():
        raise DataError(
            f"{beside} is not there", hint=f"kagflow ensemble --name {file.stem} makes it anew"
        )
    return perimage.read(beside, metric.load(spec), spec.classes)


def _row(name: str, folds: Sequence[Path]) -> RunRow:
    facts = [read_run(folder) for folder in folds]
    images = [int(fact["images"]) for fact in facts]
    seconds = sum(float(fact["seconds"]) for fact in facts)
    return RunRow(
        run=name,
        predicts=str(facts[0]["predicts"]),
        folds=tuple(int(fact["fold"]) for fact in facts),
        of_folds=int(facts[0]["folds"]),
        images=sum(images),
        score=_mean((fact["score"] for fact in facts), images),
        floor=_mean((fact["floor"] for fact in facts), images),
        seconds=seconds,
        hours=seconds / 3600,
        seconds_per_image=sum(float(fact.get("seconds_per_image") or 0) for fact in facts),
        device=str(facts[0].get("device", "")),
    )


def _mean(values: Iterable[float], images: Sequence[int]) -> float:
    return sum(v * n for v, n in zip(values, images, strict=True)) / max(sum(images), 1)

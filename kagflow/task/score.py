"""Score predictions against the truth with the competition's metric."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from kagflow.errors import DataError
from kagflow.task import forms, rle
from kagflow.task import metric as metrics
from kagflow.task.labels import rows_by_image
from kagflow.task.table import read_table
from kagflow.task.truth import read_truth

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

    from numpy.typing import NDArray

    from kagflow.task.metric import Metric
    from kagflow.task.spec import TaskSpec
    from kagflow.task.table import Table
    from kagflow.task.truth import Truth


@dataclass(frozen=True)
class Score:
    """Hold a score and what it has to be read beside.

    `per_class` is the metric on each class alone; `nonempty` the mean over what is not empty in
    truth (None where all is); `floor` what the all-empty submission scores on the same images.
    """

    value: float
    per_class: tuple[float, ...]
    nonempty: float | None
    floor: float
    images: int


def score_counts(
    metric: Metric,
    intersection: NDArray[np.int64],
    predicted: NDArray[np.int64],
    true: NDArray[np.int64],
) -> Score:
    """Score arrays (N, C) of counts; raises DataError where N is 0."""
    if not len(true):
        raise DataError("there is no image to score", hint="Check the solution file.")
    scores = metric(intersection, predicted, true)
    counted = true > 0 if scores.ndim > 1 else (true > 0).any(axis=-1)
    return Score(
        value=float(scores.mean()),
        per_class=tuple(
            float(metric(intersection[:, at], predicted[:, at], true[:, at]).mean())
            for at in (slice(c, c + 1) for c in range(true.shape[1]))
        ),
        nonempty=float(scores[counted].mean()) if counted.any() else None,
        floor=float(metric(np.zeros_like(true), np.zeros_like(true), true).mean()),
        images=len(true),
    )


def counts(
    predicted: Mapping[int, str], true: Mapping[int, str], spec: TaskSpec
) -> NDArray[np.int64]:
    """Count one image: rows (intersection, predicted, true), array (3, C) int64.

    Pixels for segmentation; 0 or 1 for classification, whose values hold nothing.
    """
    out = np.zeros((3, len(spec.classes)), np.int64)
    masks = spec.kind == "segmentation"
    for at in predicted:
        out[1, at] = rle.area(predicted[at]) if masks else 1
    for at in true:
        out[2, at] = rle.area(true[at]) if masks else 1
    for at in predicted.keys() & true.keys():
        out[0, at] = rle.intersection(predicted[at], true[at]) if masks else 1
    return out


def score_rows(
    predicted: Mapping[str, Mapping[int, str]],
    true: Mapping[str, Mapping[int, str]],
    spec: TaskSpec,
    *,
    image_ids: Iterable[str] | None = None,
) -> Score:
    """Score {image id: {class index: run lengths}} on `image_ids`, by default all of `true`.

    An image or class that is absent is empty.
    """
    chosen = list(true if image_ids is None else image_ids)
    table = [counts(predicted.get(i, {}), true.get(i, {}), spec) for i in chosen]
    stacked = np.array(table, np.int64).reshape(-1, 3, len(spec.classes))
    return score_counts(metrics.load(spec), stacked[:, 0], stacked[:, 1], stacked[:, 2])


def score_files(submission: Path, solution: Path, spec: TaskSpec) -> dict[str, Score]:
    """Score a submission CSV: "all", and "Public" and "Private" where the solution has Usage.

    Rows of Usage "Ignored" must be there and count nowhere. Raises DataError where the submission
    has rows that are bad, missing, twice or too many, or the solution is no `truth.read_truth`.
    """
    return score_tables(read_table(submission), read_truth(solution, spec), spec)


def score_tables(given: Table, truth: Truth, spec: TaskSpec) -> dict[str, Score]:
    """Score rows that are already read, as `score_files` does."""
    predicted = rows_by_image(given, spec, sizes=truth.sizes)
    _check_keys(given, truth, spec)
    judged = [image_id for ids in truth.parts.values() for image_id in ids]
    scored = judged if truth.parts else None
    scores = {"all": score_rows(predicted, truth.labels, spec, image_ids=scored)}
    for part, ids in truth.parts.items():
        if ids:
            scores[part] = score_rows(predicted, truth.labels, spec, image_ids=ids)
    return scores


def _check_keys(given: Table, truth: Truth, spec: TaskSpec) -> None:
    asked, found = truth.keys(spec), forms.keys(given, spec)
    missing, extra = asked.keys() - found.keys(), found.keys() - asked.keys()
    if missing or extra:
        first = forms.name(min(missing or extra, key=str))
        raise DataError(
            f"{given.path}: {len(missing)} rows missing, {len(extra)} too many: {first} "
            f"{'is missing' if missing else 'is not asked for'}",
            hint="Write exactly the rows of sample_submission.csv.",
        )

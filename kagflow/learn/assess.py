"""A result's score taken apart: by class and by fold, what errors cost, and beside another."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from kagflow.errors import UsageError
from kagflow.learn.perimage import PerImage, shared
from kagflow.learn.resample import Paired, interval, paired
from kagflow.task.metric import Metric


@dataclass(frozen=True)
class Kind:
    """Count images of a class of one kind; `points` is what they take from the whole score."""

    images: int
    points: float


@dataclass(frozen=True)
class ClassWorth:
    """One class alone: its score, the floor of leaving it empty, and what its errors cost.

    `found` are there and predicted, however well; `missed` are there and not predicted;
    `invented` are predicted and not there; `clean` are neither. The points of all classes add up
    to what the score lacks to 1; they are None where the metric judges an image as a whole.
    """

    label: str
    score: float
    interval: tuple[float, float]
    floor: float
    gain: float
    nonempty: float | None
    clean: int
    found: Kind | None
    missed: Kind | None
    invented: Kind | None


@dataclass(frozen=True)
class FoldWorth:
    """One fold's images alone."""

    fold: int
    images: int
    score: float
    floor: float


@dataclass(frozen=True)
class Worth:
    """A result's score on N images; intervals are 95 %, over draws of near-duplicate groups.

    `floor` is what predicting nothing scores on the same images, `gain` what there is above it,
    `nonempty` the mean over what is not empty in truth.
    """

    name: str
    images: int
    clusters: int
    score: float
    interval: tuple[float, float]
    floor: float
    gain: float
    nonempty: float | None
    folds: tuple[FoldWorth, ...]
    classes: tuple[ClassWorth, ...]


@dataclass(frozen=True)
class Comparison:
    """Two results on the images that both have: first minus second."""

    first: str
    second: str
    images: int
    scores: tuple[float, float]
    paired: Paired


def assess(result: PerImage, metric: Metric) -> Worth:
    """Take a result apart."""
    there = result.true > 0
    if result.scores.shape != there.shape:
        there = there.any(axis=1, keepdims=True)
    return Worth(
        name=result.name,
        images=len(result.image_ids),
        clusters=len(np.unique(result.clusters)),
        score=float(result.scores.mean()),
        interval=interval(result.image_scores, result.clusters),
        floor=float(result.floors.mean()),
        gain=float((result.scores - result.floors).mean()),
        nonempty=_mean(result.scores[there]),
        folds=tuple(_fold(result, int(fold)) for fold in np.unique(result.folds)),
        classes=tuple(_class(result, metric, at) for at in range(len(result.classes))),
    )


def compare(first: PerImage, second: PerImage) -> Comparison:
    """Compare two results image by image.

    Raises DataError where they share no image, UsageError where they are judged differently.
    """
    one, two = shared([first, second])
    if not np.array_equal(one.true, two.true):
        raise UsageError(
            f"{first.name} and {second.name} are judged by different things",
            hint="Compare runs that predict the same thing.",
        )
    return Comparison(
        first=first.name,
        second=second.name,
        images=len(one.image_ids),
        scores=(float(one.scores.mean()), float(two.scores.mean())),
        paired=paired(one.image_scores, two.image_scores, one.clusters),
    )


def _fold(result: PerImage, fold: int) -> FoldWorth:
    rows = result.folds == fold
    score, floor = float(result.scores[rows].mean()), float(result.floors[rows].mean())
    return FoldWorth(fold, int(rows.sum()), score, floor)


def _class(result: PerImage, metric: Metric, at: int) -> ClassWorth:
    one = slice(at, at + 1)
    true, predicted = result.true[:, one], result.predicted[:, one]
    scores = metric(result.intersection[:, one], predicted, true).ravel()
    floors = metric(np.zeros_like(true), np.zeros_like(true), true).ravel()
    there, said = true.ravel() > 0, predicted.ravel() > 0
    apart = result.scores.shape == result.true.shape

    def kind(rows: NDArray[np.bool_]) -> Kind | None:
        lost = float((1 - scores[rows]).sum()) / result.scores.size
        return Kind(int(rows.sum()), lost) if apart else None

    return ClassWorth(
        label=result.classes[at],
        score=float(scores.mean()),
        interval=interval(scores, result.clusters),
        floor=float(floors.mean()),
        gain=float((scores - floors).mean()),
        nonempty=_mean(scores[there]),
        clean=int((~there & ~said).sum()),
        found=kind(there & said),
        missed=kind(there & ~said),
        invented=kind(~there & said),
    )


def _mean(values: NDArray[np.float64]) -> float | None:
    return float(values.mean()) if values.size else None

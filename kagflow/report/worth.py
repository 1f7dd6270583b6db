"""Scores with their intervals."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from kagflow.learn.perimage import PerImage

DRAWS = 2_000
LEVEL = 0.95


@dataclass(frozen=True)
class ClassWorth:
    """One class: its score, the floor of predicting nothing, and the score where it is there."""

    label: str
    score: float
    low: float
    high: float
    floor: float
    nonempty: float | None
    there: int


@dataclass(frozen=True)
class Worth:
    """A result's score with its 95 % interval over other draws of such images."""

    name: str
    score: float
    low: float
    high: float
    floor: float
    nonempty: float | None
    images: int
    clusters: int
    classes: tuple[ClassWorth, ...]


def worth(result: PerImage) -> Worth:
    """Score a result; the interval is a bootstrap over groups of near-duplicates."""
    by_class = result.scores.shape == result.true.shape
    low, high = interval(result.image_scores, result.clusters)
    there = (result.true > 0) if by_class else (result.true > 0).any(axis=1, keepdims=True)
    columns = range(len(result.classes)) if by_class else ()
    return Worth(
        name=result.name,
        score=float(result.scores.mean()),
        low=low,
        high=high,
        floor=float(result.floors.mean()),
        nonempty=float(result.scores[there].mean()) if there.any() else None,
        images=len(result.image_ids),
        clusters=len(set(result.clusters.tolist())),
        classes=tuple(_class_worth(result, c) for c in columns),
    )


def interval(values: NDArray[np.float64], clusters: NDArray[np.int64]) -> tuple[float, float]:
    """Return the 95 % interval of a mean: whole clusters are drawn with replacement, seed 0.

    Percentiles of 2,000 means; images of one cluster are no independent evidence.
    """
    _, at = np.unique(clusters, return_inverse=True)
    sums, sizes = np.bincount(at, values), np.bincount(at)
    rng = np.random.default_rng(0)
    means = []
    for _ in range(DRAWS):
        drawn = rng.integers(len(sums), size=len(sums))
        means.append(sums[drawn].sum() / sizes[drawn].sum())
    tail = (1 - LEVEL) / 2
    low, high = np.quantile(means, [tail, 1 - tail])
    return float(low), float(high)


def correlations(results: Sequence[PerImage]) -> list[list[float | None]]:
    """Return how alike the results' scores are image by image (Pearson); None where one is flat."""
    scores = np.stack([one.image_scores for one in results])
    scores = scores - scores.mean(axis=1, keepdims=True)
    size = np.sqrt((scores**2).sum(axis=1))
    return [
        [
            float(scores[a] @ scores[b] / (size[a] * size[b])) if size[a] * size[b] > 0 else None
            for b in range(len(results))
        ]
        for a in range(len(results))
    ]


def _class_worth(result: PerImage, c: int) -> ClassWorth:
    values, there = result.scores[:, c], result.true[:, c] > 0
    low, high = interval(values, result.clusters)
    return ClassWorth(
        label=result.classes[c],
        score=float(values.mean()),
        low=low,
        high=high,
        floor=float(result.floors[:, c].mean()),
        nonempty=float(values[there].mean()) if there.any() else None,
        there=int(there.sum()),
    )

"""What chance does to a score: whole groups of near-duplicates are drawn again, never images."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Float = NDArray[np.float64]

DRAWS = 2000
COVERS = 0.95
_SEED = 0
# Cluster numbers drawn at once.
_CHUNK = 1 << 22


@dataclass(frozen=True)
class Paired:
    """Hold a difference of two means, its 95 % interval, and the chance that it is above 0."""

    difference: float
    low: float
    high: float
    better: float


def interval(values: Float, clusters: NDArray[np.int64]) -> tuple[float, float]:
    """Return the 95 % interval of the mean of `values` (N,), clusters (N,) being drawn again."""
    low, high = np.quantile(draw_means(values[:, None], clusters)[:, 0], _tails())
    return float(low), float(high)


def paired(first: Float, second: Float, clusters: NDArray[np.int64]) -> Paired:
    """Compare two results on the same images (N,): both see the same draws; ties count half."""
    values = first - second
    drawn = draw_means(values[:, None], clusters)[:, 0]
    low, high = np.quantile(drawn, _tails())
    better = float((drawn > 0).mean() + (drawn == 0).mean() / 2)
    return Paired(float(values.mean()), float(low), float(high), better)


def draw_means(
    values: Float, clusters: NDArray[np.int64], *, draws: int = DRAWS, seed: int = _SEED
) -> Float:
    """Return the means of columns (N, K) over drawn clusters: (draws, K)."""
    _, which = np.unique(clusters, return_inverse=True)
    count = int(which.max()) + 1
    columns = np.column_stack([np.ones(len(values)), values])
    sums = np.stack([np.bincount(which, column, minlength=count) for column in columns.T], axis=1)
    rng = np.random.default_rng(seed)
    step = max(1, _CHUNK // count)
    means = []
    for start in range(0, draws, step):
        rows = min(step, draws - start)
        times = _times(rng.integers(0, count, (rows, count)), count)
        total = times @ sums
        means.append(total[:, 1:] / total[:, :1])
    return np.concatenate(means)


def _times(drawn: NDArray[np.int64], count: int) -> Float:
    """Count how often each cluster was drawn: (rows, count)."""
    rows = np.arange(len(drawn))[:, None] * count
    return np.bincount((drawn + rows).ravel(), minlength=drawn.size).reshape(drawn.shape) * 1.0


def _tails() -> list[float]:
    return [(1 - COVERS) / 2, (1 + COVERS) / 2]

"""What a comparison of two arms on the same images says: pure functions of their scores."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from kagflow.infer.postprocess import ClassRule
from kagflow.task import rle
from kagflow.task.metric import Metric

DRAWS = 10_000
# A share of the bootstrap in each tail: the interval holds 95 %.
TAIL = 2.5
Scores = NDArray[np.float64]


@dataclass(frozen=True)
class Paired:
    """Ours minus theirs on N images of seed-averaged scores, with a 95 % interval.

    `ours_spread` and `theirs_spread` are standard deviations of the arm's score over its seeds,
    None for one seed.
    """

    ours: float
    theirs: float
    low: float
    high: float
    ours_spread: float | None
    theirs_spread: float | None
    images: int

    @property
    def gain(self) -> float:
        """Ours minus theirs."""
        return self.ours - self.theirs

    @property
    def verdict(self) -> str:
        """Say win or loss where the interval leaves out 0, else tie."""
        return "win" if self.low > 0 else "loss" if self.high < 0 else "tie"


def paired(
    ours: Sequence[Scores], theirs: Sequence[Scores], clusters: NDArray[np.int64], *, seed: int = 0
) -> Paired:
    """Compare arms, one (N,) array of per-image scores a seed, resampling clusters of images.

    The percentile bootstrap (Efron 1979) over groups of near-duplicates; both arms see the same
    draws. Raises ValueError where the arrays differ in length.
    """
    if len({len(one) for one in (*ours, *theirs, clusters)}) != 1:
        raise ValueError("the arms were scored on different images")
    mine, other = np.mean(ours, axis=0), np.mean(theirs, axis=0)
    _, which = np.unique(clusters, return_inverse=True)
    sums, sizes = np.bincount(which, mine - other), np.bincount(which)
    drawn = np.random.default_rng(seed).integers(0, len(sizes), (DRAWS, len(sizes)))
    means = sums[drawn].sum(axis=1) / sizes[drawn].sum(axis=1)
    low, high = np.percentile(means, [TAIL, 100 - TAIL])
    return Paired(
        ours=float(mine.mean()),
        theirs=float(other.mean()),
        low=float(low),
        high=float(high),
        ours_spread=_spread(ours),
        theirs_spread=_spread(theirs),
        images=len(clusters),
    )


def all_empty(arms: Sequence[Sequence[ClassRule]]) -> bool:
    """Tell whether every seed of every arm was tuned to predict nothing."""
    return all(rule.empty for rules in arms for rule in rules)


def count_masks(masks: NDArray[np.bool_], truth: Mapping[int, str]) -> NDArray[np.int64]:
    """Count intersection, predicted and true pixels of an image's masks (C, H, W): (3, C)."""
    true = np.zeros(masks.shape, bool)
    for at, text in truth.items():
        true[at] = rle.decode(text, *masks.shape[1:]) > 0
    return np.array([one.sum(axis=(1, 2), dtype=np.int64) for one in (masks & true, masks, true)])


def per_image(counts: NDArray[np.int64], metric: Metric) -> Scores:
    """Return (N,) scores, the mean over classes, from counts (3, N, C)."""
    scores = metric(*counts)
    return np.asarray(scores.mean(axis=1) if scores.ndim > 1 else scores, np.float64)


def nonempty(counts: NDArray[np.int64], metric: Metric) -> float:
    """Return the mean score of what is not empty in truth, from counts (3, N, C)."""
    return float(metric(*counts)[counts[2] > 0].mean())


def _spread(arms: Sequence[Scores]) -> float | None:
    values = [float(one.mean()) for one in arms]
    return float(np.std(values, ddof=1)) if len(values) > 1 else None

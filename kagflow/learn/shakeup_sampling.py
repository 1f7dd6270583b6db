"""How much a mean over images moves when other images are drawn: by near-duplicate cluster.

Images of a cluster are drawn together, since a score that is wrong on one is wrong on its
neighbours. All candidates are drawn on the same images, so that differences keep their pairing.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kagflow.errors import DataError

Float = NDArray[np.float64]
DRAWS = 2000
# Degrees of freedom below which tails would be wider than anybody can use.
_FEWEST = 3.0


@dataclass(frozen=True)
class Paired:
    """Hold J candidates' scores on the same N images: `scores` (J, N) float, `clusters` (N,).

    Scores are cross-fitted: no image's score comes of a choice that was made on it.
    """

    scores: NDArray[Any]
    clusters: NDArray[np.int64]

    def __post_init__(self) -> None:
        if self.scores.ndim != 2 or self.scores.shape[1:] != self.clusters.shape:
            raise DataError(f"scores {self.scores.shape} for clusters {self.clusters.shape}")
        if self.scores.size == 0:
            raise DataError("there is no image that all candidates were scored on")
        if not np.isfinite(self.scores).all():
            raise DataError("a candidate has images without a score", hint="kagflow ensemble")

    @property
    def images(self) -> int:
        """Count the images."""
        return self.scores.shape[1]

    @property
    def means(self) -> Float:
        """Return each candidate's mean score: (J,)."""
        return np.asarray(self.scores.mean(axis=1, dtype=np.float64))


def cluster_sums(paired: Paired) -> tuple[Float, Float]:
    """Return what each of G clusters adds up to, (G, J), and how many images it has, (G,)."""
    _, which = np.unique(paired.clusters, return_inverse=True)
    sums: Float = np.stack([np.bincount(which, row) for row in paired.scores], axis=1)
    return sums, np.bincount(which).astype(np.float64)


def group_size(clusters: NDArray[np.int64]) -> float:
    """Return how many images the cluster of an average image has."""
    _, counts = np.unique(clusters, return_counts=True)
    return float((counts**2).sum() / counts.sum())


def covariance(paired: Paired) -> Float:
    """Return S (J, J) such that means over n fresh images have covariance S / n.

    The linearised cluster variance of a ratio of sums (Cochran 1977, Sampling Techniques, ch. 6):
    what the cluster bootstrap converges to.
    """
    sums, sizes = cluster_sums(paired)
    away = sums - sizes[:, None] * paired.means
    return np.asarray(away.T @ away / sizes.sum())


def draw_means(paired: Paired, images: int, *, draws: int, rng: np.random.Generator) -> Float:
    """Return means over about `images` images, drawn by whole clusters: (draws, J)."""
    sums, sizes = cluster_sums(paired)
    picks = max(1, round(images / sizes.mean()))
    table = np.concatenate([sums, sizes[:, None]], axis=1)
    out = np.empty((draws, table.shape[1]))
    for number in range(draws):
        out[number] = table[rng.integers(len(table), size=picks)].sum(axis=0)
    return out[:, :-1] / out[:, -1:]


def predict_interval(
    paired: Paired,
    images: int,
    *,
    parts: int = 0,
    level: float = 0.9,
    draws: int = DRAWS,
    seed: int = 0,
) -> Float:
    """Return where each candidate's score on `images` fresh images will lie: (J, 2), low and high.

    `parts` is over how many parts of the images the candidates' rules were cross-fitted, 0 where
    nothing was chosen on them. Both samples count: fresh images and those of the estimate are of
    one kind, so deviations that are drawn for the one are widened for the other. The choices that
    parts have in common add half of what Nadeau and Bengio (2003) add, parts / (parts - 1): on
    halves of real tiles and steel all of it held too often, none of it too rarely. Tails are
    Student's, for the few clusters that make up the variance. Assumes that the fresh images come
    from the same source.
    """
    drawn = draw_means(paired, images, draws=draws, rng=np.random.default_rng(seed))
    ours = 1 + (parts / (parts - 1) / 2 if parts > 1 else 0.0)
    away = (drawn - paired.means) * np.sqrt(1 + ours * images / paired.images)
    away *= _student(paired, level)
    tails = np.array([(1 - level) / 2, (1 + level) / 2])
    low, high = np.quantile(away, tails, axis=0)
    return np.stack([paired.means + low, paired.means + high], axis=1)


def _student(paired: Paired, level: float) -> Float:
    """Return how much wider Student's tails are than normal ones, for each candidate: (J,).

    Degrees of freedom of a variance estimate: Satterthwaite (1946), with each cluster's share.
    """
    from scipy.special import ndtri, stdtrit

    sums, sizes = cluster_sums(paired)
    shares = (sums - sizes[:, None] * paired.means) ** 2
    # Where nothing varies, nothing is widened.
    freedom = shares.sum(axis=0) ** 2 / np.maximum((shares**2).sum(axis=0), 1e-300)
    tail = (1 + level) / 2
    return np.asarray(stdtrit(np.maximum(freedom, _FEWEST), tail) / ndtri(tail))

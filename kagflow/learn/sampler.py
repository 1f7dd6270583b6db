"""Which images an epoch sees. Every draw depends on (seed, epoch) alone."""

from __future__ import annotations

from typing import NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from kagflow.errors import UsageError

SAMPLERS = {
    "plain": "kagflow.learn.sampler:Plain",
    "balanced": "kagflow.learn.sampler:Balanced",
    "hard": "kagflow.learn.sampler_hard:Hard",
}

Labels = npt.NDArray[np.bool_]
Indices = npt.NDArray[np.int64]
Weights = npt.NDArray[np.float64]


class Draw(NamedTuple):
    """Name one training sample: which image, with which augmentation seed, centred or not."""

    image: int
    seed: int
    centred: bool


class Sampler(Protocol):
    """Choose images for an epoch.

    `centred` is the share of crops laid around a defect pixel, where the image has one.
    """

    centred: float

    def draw(
        self, labels: Labels, *, samples: int, progress: float, rng: np.random.Generator
    ) -> Indices:
        """Return `(samples,)` row numbers of `labels` `(N, C)`.

        `progress` runs from 0 in the first epoch to 1 in the last.
        """


class Plain:
    """Take every image once before any image twice."""

    def __init__(self, *, centred: float = 0.0) -> None:
        self.centred = centred

    def draw(
        self, labels: Labels, *, samples: int, progress: float, rng: np.random.Generator
    ) -> Indices:
        """Return `(samples,)` rows, each image as often as any other, one more at most."""
        del progress
        return in_turn(len(labels), samples, rng)


class Balanced:
    """Draw a share of images with defects that falls linearly from `start` to `end`.

    Among them an image weighs max over its classes of max(1, sqrt(threshold / frequency)): the
    repeat factor of LVIS (Gupta et al. 2019). The sliding share is the SIIM-ACR 2019 winner's.
    The last `natural` of the epochs, 0 to 1, take every image as often as any other, so that a
    model ends on the true share of defects; the share falls in the time before.
    """

    def __init__(
        self,
        *,
        start: float = 0.8,
        end: float = 0.4,
        threshold: float = 0.1,
        centred: float = 0.5,
        natural: float = 0.0,
    ) -> None:
        for name, value in (("start", start), ("end", end), ("natural", natural)):
            if not 0 <= value <= 1:
                raise UsageError(f"{name} is {value}", hint=f"{name} is a share, from 0 to 1")
        self.start = start
        self.end = end
        self.threshold = threshold
        self.centred = centred
        self.natural = natural

    def draw(
        self, labels: Labels, *, samples: int, progress: float, rng: np.random.Generator
    ) -> Indices:
        """Return `(samples,)` rows; where one kind of image is missing the other fills in."""
        falling = 1 - self.natural
        if self.natural == 1 or progress > falling:
            return in_turn(len(labels), samples, rng)
        defect = np.flatnonzero(labels.any(axis=1))
        clean = np.flatnonzero(~labels.any(axis=1))
        share = self.start + (self.end - self.start) * (progress / falling if progress else 0)
        if not len(clean) or not len(defect):
            share = float(len(defect) > 0)
        wanted = round(samples * share)
        weights = self.weights(labels)
        chosen = np.concatenate(
            [
                _spread(defect, weights[defect], wanted, rng),
                _spread(clean, weights[clean], samples - wanted, rng),
            ]
        )
        return rng.permutation(chosen)

    def weights(self, labels: Labels) -> Weights:
        """Return `(N,)`: how often an image comes, beside others with or without a defect."""
        return repeat_factors(labels, threshold=self.threshold)


def repeat_factors(labels: Labels, *, threshold: float) -> Weights:
    """Return `(N,)` weights, at least 1, from labels `(N, C)`."""
    frequency = np.maximum(labels.mean(axis=0), 1e-12)
    factors = np.maximum(1.0, np.sqrt(threshold / frequency))
    return np.asarray(np.where(labels, factors, 1.0).max(axis=1, initial=1.0))


def in_turn(images: int, samples: int, rng: np.random.Generator) -> Indices:
    """Return `(samples,)` rows: every image once before any image twice."""
    rounds = -(-samples // images)
    return np.concatenate([rng.permutation(images) for _ in range(rounds)])[:samples]


def _spread(rows: Indices, weights: Weights, count: int, rng: np.random.Generator) -> Indices:
    # Systematic resampling: a row of expected count e comes floor(e) or ceil(e) times, so no image
    # is missed by bad luck as in independent draws.
    if count == 0 or not len(rows):
        return np.empty(0, np.int64)
    order = rng.permutation(len(rows))
    edges = np.cumsum(weights[order])
    marks = (np.arange(count) + rng.random()) * edges[-1] / count
    picks = np.searchsorted(edges, marks, side="right")
    return np.asarray(rows[order[np.minimum(picks, len(rows) - 1)]])


def draws(
    sampler: Sampler,
    labels: Labels,
    *,
    samples: int,
    epoch: int,
    epochs: int,
    seed: int,
) -> list[Draw]:
    """Return an epoch's samples in order, the same for the same (seed, epoch)."""
    rng = np.random.default_rng((seed, epoch))
    progress = epoch / max(epochs - 1, 1)
    rows = sampler.draw(labels, samples=samples, progress=progress, rng=rng)
    seeds = rng.integers(0, 2**32, size=len(rows), dtype=np.int64)
    centred = rng.random(len(rows)) < sampler.centred
    return [
        Draw(int(row), int(one), bool(centre))
        for row, one, centre in zip(rows, seeds, centred, strict=True)
    ]

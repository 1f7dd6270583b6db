"""A small picture of all members' maps, in which any blend of them is counted in a moment.

Of every class of every image an even sample is kept of the pixels where some member reaches the
lowest threshold: all of them where they are few. Weights are found on it; what is reported is then
counted from every pixel.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from kagflow.infer.postprocess import log_odds
from kagflow.learn.blend import Blend
from kagflow.learn.counts import FLOOR, THRESHOLDS
from kagflow.learn.evidence import Evidence, from_labels
from kagflow.learn.oof import quantise
from kagflow.learn.pool import Active, Pool
from kagflow.progress import QUIET, Progress

# Bytes that a sketch may take, whatever the number of images, classes and members.
BUDGET = 600_000_000
# A sample within these bounds is neither noise nor waste.
_LEAST, _MOST = 256, 16_384
# Every second threshold is enough to tell blends apart.
SKETCHED: NDArray[np.float32] = THRESHOLDS[1::2]
# Pixels counted at once: their sums and keys have to stay in a core's own cache (measured: half the
# time of 2**20).
_CHUNK = 1 << 16
# Steps of a logit: sums of them stay whole numbers.
_FINE = 64
_GREY = np.arange(256, dtype=np.int32)
_LOGITS = np.rint(log_odds(_GREY.astype(np.float32) / 255) * _FINE).astype(np.int32)


class Trials(Protocol):
    """Count any blend of the members that predict what the task asks for."""

    @property
    def pool(self) -> Pool:
        """What the members predict."""

    @property
    def members(self) -> int:
        """How many there are."""

    def evidence(self, blend: Blend) -> Evidence:
        """Return what a blend's maps or labels say."""


@dataclass(frozen=True)
class LabelTrials:
    """Trials of a classification, which are exact."""

    pool: Pool

    @property
    def members(self) -> int:
        """How many there are."""
        return len(self.pool.labels)

    def evidence(self, blend: Blend) -> Evidence:
        """Return what the blend's mean says."""
        return from_labels(self.pool, blend)


@dataclass(frozen=True)
class Sample:
    """One class's pixels P: `values` (M, P), in runs that end at `ends` (2 n,).

    Each of n images `rows` has two runs: its clean pixels, then its true ones; a pixel stands for
    `scale` (n,) of its kind.
    """

    rows: NDArray[np.int64]
    values: NDArray[np.uint8]
    ends: NDArray[np.int64]
    scale: NDArray[np.float64]


@dataclass(frozen=True)
class Sketch:
    """Trials of masks, on a sample of pixels."""

    pool: Pool
    samples: tuple[Sample, ...]

    @property
    def members(self) -> int:
        """How many there are."""
        return len(self.pool.masks)

    def evidence(self, blend: Blend) -> Evidence:
        """Estimate what the blend's maps say, without components."""
        counts = np.zeros((2, *self.pool.true.shape, len(SKETCHED)), np.int32)
        for index, sample in enumerate(self.samples):
            counts[:, sample.rows, index] = _count(sample, blend)
        return Evidence(
            image_ids=self.pool.names,
            clusters=self.pool.clusters,
            true=self.pool.true,
            predicted=counts[0],
            intersection=counts[1],
            gate=None,
            pixels=self.pool.pixels,
            thresholds=SKETCHED,
        )


def make_sketch(pool: Pool, progress: Progress | None = None, *, budget: int = BUDGET) -> Sketch:
    """Read all members' maps once and keep at most `budget` bytes of them."""
    images, classes = pool.true.shape
    most = budget // max(images * classes * len(pool.masks), 1)
    most = min(max(most, _LEAST), _MOST)

    def one(number: int, active: list[Active]) -> tuple[int, list[_Kept]]:
        return number, [_keep(found, most) for found in active]

    kept: list[list[tuple[int, _Kept]]] = [[] for _ in range(classes)]
    for number, found in pool.each(one, progress or QUIET, "sketch out-of-fold masks"):
        for sample in found:
            kept[sample.number].append((number, sample))
    samples = []
    for mine in kept:
        samples.append(_joined(mine, len(pool.masks)))
        mine.clear()
    return Sketch(pool, tuple(samples))


@dataclass(frozen=True)
class _Kept:
    """One class of one image: `values` (M, k), of which the last `true` are true."""

    number: int
    values: NDArray[np.uint8]
    true: int
    scale: float


def _keep(active: Active, most: int) -> _Kept:
    values = quantise(active.planes).reshape(len(active.planes), -1)
    lit = np.flatnonzero(values.max(axis=0) >= FLOOR)
    chosen = lit[np.linspace(0, len(lit) - 1, min(len(lit), most)).astype(np.int64)]
    true = np.zeros(len(chosen), bool)
    if active.truth is not None:
        true = active.truth.ravel()[chosen] > 0
    order = np.argsort(true, kind="stable")
    scale = len(lit) / max(len(chosen), 1)
    return _Kept(active.number, values[:, chosen[order]], int(true.sum()), scale)


def _joined(kept: list[tuple[int, _Kept]], members: int) -> Sample:
    lengths = [[one.values.shape[1] - one.true, one.true] for _, one in kept]
    whole = np.zeros((members, 0), np.uint8)
    if kept:
        whole = np.concatenate([one.values for _, one in kept], axis=1)
    return Sample(
        rows=np.array([row for row, _ in kept], np.int64),
        values=whole,
        ends=np.array(lengths, np.int64).ravel().cumsum(),
        scale=np.array([one.scale for _, one in kept]),
    )


def _count(sample: Sample, blend: Blend) -> NDArray[np.int32]:
    """Count a blend's pixels at each threshold: predicted and true ones, (2, n, T)."""
    levels, lowest = _levels(blend)
    wide = len(SKETCHED) + 1
    starts = np.append(0, sample.ends[:-1]) if len(sample.ends) else sample.ends
    table = np.zeros(len(starts) * wide, np.int64)
    for first in range(0, sample.values.shape[1], _CHUNK):
        last = min(first + _CHUNK, sample.values.shape[1])
        total = _sum(sample.values[:, first:last], blend)
        total -= lowest
        # Which run each pixel of the chunk is in.
        low, high = np.searchsorted(sample.ends, [first, last - 1], side="right")
        inside = np.minimum(sample.ends[low : high + 1], last) - np.maximum(
            starts[low : high + 1], first
        )
        keys = levels.take(total)
        keys += np.repeat(np.arange(high - low + 1) * wide, inside)
        counted = np.bincount(keys, minlength=(high - low + 1) * wide)
        table[low * wide : (high + 1) * wide] += counted
    runs = table.reshape(-1, 2, wide)[..., ::-1].cumsum(axis=-1)[..., ::-1][..., 1:]
    predicted = runs.sum(axis=1) * sample.scale[:, None]
    both = runs[:, 1] * sample.scale[:, None]
    return np.asarray(np.rint(np.stack([predicted, both])), np.int32)


def _sum(values: NDArray[np.uint8], blend: Blend) -> NDArray[np.int32]:
    """Add up the members' whole numbers, each as often as it counts."""
    total = np.zeros(values.shape[1], np.int32)
    for member in blend.members:
        if blend.logits:
            total += (_LOGITS * blend.counts[member])[values[member]]
        else:
            total += np.multiply(values[member], blend.counts[member], dtype=np.int32)
    return total


def _levels(blend: Blend) -> tuple[NDArray[np.int64], int]:
    """Return how many thresholds each possible sum reaches, and the lowest sum."""
    times = sum(blend.counts)
    table = _LOGITS if blend.logits else _GREY
    lowest, highest = int(table[0]) * times, int(table[-1]) * times
    sums = np.arange(lowest, highest + 1) / times
    marks = log_odds(SKETCHED) * _FINE if blend.logits else SKETCHED * 255
    levels: NDArray[np.int64] = np.searchsorted(marks, sums, side="right").astype(np.int64)
    return levels, lowest

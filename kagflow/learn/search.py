"""Find each class's threshold, minimum area and gate, and say what the choice is worth.

For one class the whole grid is one table of gains over predicting nothing, by part of the data.
A choice is judged on parts that it was not tuned on; the choice among kinds of rule (nothing, the
default, tuned, tuned with a gate) is made inside that, so the cross-fitted score covers it too.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from kagflow.infer.postprocess import ClassRule
from kagflow.learn.evidence import THRESHOLDS, Evidence
from kagflow.task.metric import Metric
from kagflow.task.score import Score, score_counts

PARTS = 5
GATES: NDArray[np.float32] = np.array(
    [0, .01, .02, .05, .1, .15, .2, .25, .3, .35, .4, .45, .5, .55, .6, .65, .7, .75, .8, .85, .9,
     .95, .98],
    np.float32,
)  # fmt: skip
# Shares of an image, halving every second step, from an eighth down.
_AREAS = 2.0 ** -np.arange(3, 16.5, 0.5)
# Score gains below it are the rounding of sums.
_EPS = 1e-9

# Gains (parts, thresholds, areas, gates) of a class; places on their last three axes.
Gains = NDArray[np.float64]
Cell = tuple[int, int, int]
DEFAULT: Cell = (int(np.flatnonzero(THRESHOLDS == 0.5)[0]), 0, 0)


@dataclass(frozen=True)
class Found:
    """Hold the rules and three scores on the same images.

    `naive` is that of the rules on the images that they were tuned on, `crossfitted` that of the
    whole procedure on parts that it had not seen, `default` that of threshold .5 alone.
    `outside` (3, N, C) is what the cross-fitted score is of: intersection, predicted, true.
    """

    rules: tuple[ClassRule, ...]
    naive: Score
    crossfitted: Score
    default: Score
    outside: NDArray[np.int64] = field(compare=False)


@dataclass(frozen=True)
class _Choice:
    """One class's place on the grid, None for nothing, and that of each part's turn outside."""

    cell: Cell | None
    by_part: tuple[Cell | None, ...]


def search(evidence: Evidence, metric: Metric) -> Found:
    """Tune every class on its own.

    A class whose tuned rule does not beat, on unseen parts, both the default and predicting
    nothing gets the better of these two: `crossfitted` is never below the all-empty floor. That
    last choice is not cross-fitted; on classes that gain about nothing it flatters by up to .006
    at 150 images and .003 at 600 (measured on made-up counts), else by nothing.
    """
    parts = make_parts(evidence.clusters, evidence.true > 0)
    areas = area_grid(evidence.pixels)
    choices = [
        _choose_class(class_gains(evidence, metric, index, parts=parts, areas=areas))
        for index in range(evidence.true.shape[1])
    ]
    cells = [choice.cell for choice in choices]
    outside = np.zeros((3, *evidence.true.shape), np.int64)
    for part in range(parts.max() + 1):
        rows = parts == part
        turn = [choice.by_part[part] for choice in choices]
        outside[:, rows] = _counts(evidence, turn, areas)[:, rows]
    return Found(
        rules=tuple(_rule(cell, areas) for cell in cells),
        naive=score_counts(metric, *_counts(evidence, cells, areas)),
        crossfitted=score_counts(metric, *outside),
        default=default_score(evidence, metric),
        outside=outside,
    )


def default_score(evidence: Evidence, metric: Metric) -> Score:
    """Score the untuned rule: threshold .5, any area, no gate."""
    return score_counts(metric, *default_counts(evidence))


def default_counts(evidence: Evidence) -> NDArray[np.int64]:
    """Count under the untuned rule: intersection, predicted, true as (3, N, C)."""
    cells = [DEFAULT] * evidence.true.shape[1]
    return _counts(evidence, cells, area_grid(evidence.pixels))


def untuned(evidence: Evidence, metric: Metric) -> Found:
    """Return the default rules, for competitions where there is nothing to tune."""
    score = default_score(evidence, metric)
    counts = default_counts(evidence)
    return Found((ClassRule(),) * evidence.true.shape[1], score, score, score, counts)


def area_grid(pixels: int) -> NDArray[np.int64]:
    """Return the minimum areas to try, in pixels, for images of `pixels`: 0 and up."""
    shares = np.rint(pixels * _AREAS).astype(np.int64)
    grid: NDArray[np.int64] = np.unique(np.append(shares, 0))
    return grid


def make_parts(clusters: NDArray[np.int64], present: NDArray[np.bool_]) -> NDArray[np.int64]:
    """Deal near-duplicate groups into at most 5 parts: (N,) int64, parts count from 0.

    Groups with the same classes `present` (N, C) are dealt in turn, so each part has its share.
    """
    _, which = np.unique(clusters, return_inverse=True)
    shown = np.zeros((which.max() + 1, present.shape[1]), bool)
    np.logical_or.at(shown, which, present)
    shuffled = np.random.default_rng(0).permutation(len(shown))
    order = shuffled[np.lexsort(shown[shuffled].T)]
    part = np.empty(len(shown), np.int64)
    part[order] = np.arange(len(shown)) % min(PARTS, len(shown))
    dealt: NDArray[np.int64] = part[which]
    return dealt


def class_gains(
    evidence: Evidence,
    metric: Metric,
    index: int,
    *,
    parts: NDArray[np.int64],
    areas: NDArray[np.int64],
) -> Gains:
    """Return a class's summed score gain over predicting nothing: (parts, T, areas, gates).

    Without label members the last axis has the one gate that lets all pass.
    """
    true = evidence.true[:, index, None]
    nothing = metric(np.zeros_like(true), np.zeros_like(true), true).ravel()
    gates = GATES if evidence.gate is not None else GATES[:1]
    seen = np.zeros(len(true), np.float32) if evidence.gate is None else evidence.gate[:, index]
    gate_bin = np.searchsorted(gates, seen, side="right") - 1
    shape = (int(parts.max()) + 1, len(areas), len(gates))
    tables = []
    for at in range(len(THRESHOLDS)):
        predicted = evidence.predicted[:, index, at, None]
        kept = metric(evidence.intersection[:, index, at, None], predicted, true).ravel()
        area_bin = np.searchsorted(areas, predicted[:, 0], side="right") - 1
        bins = np.ravel_multi_index((parts, area_bin, gate_bin), shape)
        table = np.bincount(bins, kept - nothing, minlength=int(np.prod(shape))).reshape(shape)
        tables.append(table[:, ::-1, ::-1].cumsum(axis=1).cumsum(axis=2)[:, ::-1, ::-1])
    return np.stack(tables, axis=1)


def pick(table: NDArray[np.float64]) -> Cell:
    """Return the centre of the best plateau of a table (T, areas, gates).

    Cells are averaged with their neighbours along each axis, so that a lone peak loses; among
    equals the one nearest to their middle is taken.
    """
    smooth = table
    for axis, length in enumerate(table.shape):
        if length > 1:
            padded = np.pad(smooth, [(int(axis == other),) * 2 for other in range(3)], mode="edge")
            near = [padded.take(range(shift, shift + length), axis=axis) for shift in range(3)]
            smooth = np.mean(near, axis=0)
    best = np.argwhere(smooth >= smooth.max() - _EPS)
    middle = best[((best - best.mean(axis=0)) ** 2).sum(axis=1).argmin()]
    return int(middle[0]), int(middle[1]), int(middle[2])


def choose(gains: Gains) -> Cell | None:
    """Return the kind of rule that gains most on parts it was not tuned on; None is nothing.

    A kind that needs more tuning has to gain more than every simpler one.
    """
    best: Cell | None = None
    worth = 0.0
    default = float(gains[:, *DEFAULT].sum())
    if default > worth + _EPS:
        best, worth = DEFAULT, default
    tables = [gains[..., :1]] if gains.shape[-1] == 1 else [gains[..., :1], gains]
    for table in tables if len(gains) > 1 else []:
        total = table.sum(axis=0)
        outside = sum(float(part[pick(total - part)]) for part in table)
        if outside > worth + _EPS:
            best, worth = pick(total), outside
    return best


def _choose_class(gains: Gains) -> _Choice:
    turns = range(len(gains))
    by_part = tuple(choose(np.delete(gains, part, axis=0)) for part in turns)
    outside = sum(float(gains[part][by_part[part] or DEFAULT]) for part in turns if by_part[part])
    default = float(gains[:, *DEFAULT].sum())
    if outside > max(default, 0.0) + _EPS:
        return _Choice(choose(gains), by_part)
    # Where tuning gains nothing on unseen parts, the class is better left as it is, or empty.
    simple = DEFAULT if default > _EPS else None
    return _Choice(simple, (simple,) * len(gains))


def _counts(
    evidence: Evidence, cells: Sequence[Cell | None], areas: NDArray[np.int64]
) -> NDArray[np.int64]:
    """Count under one rule a class: intersection, predicted, true as (3, N, C)."""
    out = np.zeros((3, *evidence.true.shape), np.int64)
    out[2] = evidence.true
    for index, cell in enumerate(cells):
        if cell is None:
            continue
        at, area, gate = cell
        keep = evidence.predicted[:, index, at] >= areas[area]
        if evidence.gate is not None:
            keep &= evidence.gate[:, index] >= GATES[gate]
        out[0, :, index] = evidence.intersection[:, index, at] * keep
        out[1, :, index] = evidence.predicted[:, index, at] * keep
    return out


def _rule(cell: Cell | None, areas: NDArray[np.int64]) -> ClassRule:
    if cell is None:
        return ClassRule(empty=True)
    at, area, gate = cell
    return ClassRule(
        threshold=float(THRESHOLDS[at]),
        min_area=int(areas[area]),
        gate=round(float(GATES[gate]), 2),
    )

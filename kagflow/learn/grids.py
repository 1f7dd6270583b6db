"""Every rule of one class at once: tables of gains over predicting nothing, by part of the data.

A table is summed over the parts that may be looked at, so that a choice made without a part costs
an addition, and cross-fitting inside cross-fitting is nearly free.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import uniform_filter

from kagflow.infer.postprocess import ClassRule
from kagflow.learn.calibrate import Reliability, logit
from kagflow.learn.evidence import Evidence
from kagflow.task.metric import Metric

# Image-level probabilities from which a class may pass, evenly spaced in logits; 0 lets all pass.
GATES: NDArray[np.float32] = np.append(
    0, np.round(1 / (1 + np.exp(-np.linspace(-5, 5, 21))), 4)
).astype(np.float32)
# How many times its minimum area an image without any sign of the class has to show.
SOFT = (2.0, 4.0, 8.0, 16.0)
# The triplet's two thresholds are tried at every second place.
SEED_STEP = 2
# Score gains below it are the rounding of sums.
EPS = 1e-9

Cell = tuple[int, ...]
Excluded = frozenset[int]
Float = NDArray[np.float64]
Ints = NDArray[np.int64]


@dataclass
class Grid:
    """One kind of rule of one class.

    `gains` (parts, *axes) are summed score gains over predicting nothing; `rule` reads a cell;
    `fixed` gives, for the parts left out, the place on the last axis, where that is no choice.
    """

    kind: str
    gains: Float
    rule: Callable[[Cell], ClassRule]
    fixed: Callable[[Excluded], int] | None = None
    _picked: dict[Excluded, Cell] = field(default_factory=dict, repr=False)
    _inside: dict[Excluded, float] = field(default_factory=dict, repr=False)

    def __post_init__(self) -> None:
        self._total = self.gains.sum(axis=0)

    def pick(self, excluded: Excluded) -> Cell:
        """Return the centre of the best plateau on all parts but the excluded ones."""
        if excluded not in self._picked:
            table = self._total - self.gains[sorted(excluded)].sum(axis=0)
            if self.fixed is None:
                self._picked[excluded] = plateau(table)
            else:
                last = self.fixed(excluded)
                self._picked[excluded] = (*plateau(table[..., last]), last)
        return self._picked[excluded]

    def inside(self, excluded: Excluded) -> float:
        """Return what that centre gains on the parts that it was picked on."""
        if excluded not in self._inside:
            cell = self.pick(excluded)
            less = sum(float(self.gains[(part, *cell)]) for part in excluded)
            self._inside[excluded] = float(self._total[cell]) - less
        return self._inside[excluded]


def plateau(table: Float) -> Cell:
    """Return the centre of the best plateau of a table.

    Cells are averaged with their neighbours along each axis, so that a lone peak loses; among
    equals the one nearest to their middle is taken.
    """
    smooth = uniform_filter(table, 3, mode="nearest")
    best = np.argwhere(smooth >= smooth.max() - EPS)
    middle = best[((best - best.mean(axis=0)) ** 2).sum(axis=1).argmin()]
    return tuple(int(at) for at in middle)


def make_grids(
    evidence: Evidence,
    metric: Metric,
    index: int,
    parts: Ints,
    gate: Reliability | None = None,
) -> list[Grid]:
    """Return a class's kinds of rule, from the plainest to the most tuned.

    `parts` (N,) count from 0; `gate` is how reliable the class's label members are.
    """
    one = _Class(evidence, metric, index, parts)
    tuned = [one.totals()]
    if evidence.components is not None:
        tuned.append(one.components())
    plain = [Grid(grid.kind, grid.gains[..., :1], grid.rule) for grid in tuned]
    grids = [one.default(), *plain]
    if evidence.components is not None:
        grids.append(one.triplet())
    if gate is not None:
        grids += [one.calibrated(grid, at, gate) for grid, at in zip(tuned, plain, strict=True)]
        grids += [*(Grid(f"{one.kind}, gate", one.gains, one.rule) for one in tuned), one.soft()]
    return grids


def total_grids(evidence: Evidence, metric: Metric, parts: Ints) -> list[Grid]:
    """Return each class's threshold x minimum area x gate, and nothing else."""
    classes = range(evidence.true.shape[1])
    return [_Class(evidence, metric, index, parts).totals() for index in classes]


class _Class:
    """One class's images that could be predicted at all: n of N `rows`."""

    def __init__(self, evidence: Evidence, metric: Metric, index: int, parts: Ints) -> None:
        self.rows = evidence.active(index)
        self.metric, self.parts = metric, parts[self.rows]
        self.count = int(parts.max()) + 1
        self.true = evidence.true[self.rows, index]
        self.predicted = evidence.predicted[self.rows, index]
        self.both = evidence.intersection[self.rows, index]
        self.areas, self.thresholds = evidence.areas, evidence.thresholds
        self.pieces = None if evidence.components is None else evidence.components[index]
        self.seen = np.zeros(len(self.rows))
        if evidence.gate is not None:
            self.seen = np.asarray(evidence.gate[self.rows, index], np.float64)
        self.gates = GATES if evidence.gate is not None else GATES[:1]
        self.gate_bins = np.searchsorted(self.gates, self.seen, side="right") - 1

    def default(self) -> Grid:
        """Return the one rule of threshold .5."""
        at = int(np.flatnonzero(self.thresholds == np.float32(0.5))[0])
        gain = self._gain(self.predicted[:, at], self.both[:, at])
        table = np.bincount(self.parts, gain, minlength=self.count)[:, None].astype(np.float64)
        return Grid("default", table, lambda _: ClassRule())

    def totals(self) -> Grid:
        """Return threshold x minimum area x gate."""
        tables = []
        for predicted, both in zip(self.predicted.T, self.both.T, strict=True):
            bins = self._area_bins(predicted), self.gate_bins
            shape = len(self.areas), len(self.gates)
            tables.append(self._table(self._gain(predicted, both), bins, shape))

        def rule(cell: Cell) -> ClassRule:
            at, area, gate = cell
            return ClassRule(self._at(at), int(self.areas[area]), gate=_gate(gate))

        return Grid("total area", np.stack(tables, axis=1), rule)

    def components(self) -> Grid:
        """Return threshold x smallest component x gate."""
        assert self.pieces is not None
        pieces = self.pieces
        _, thresholds, areas = pieces.predicted.shape
        out = np.empty((self.count, thresholds, areas, len(self.gates)))
        for at, area in np.ndindex(thresholds, areas):
            gain = self._gain(pieces.predicted[:, at, area], pieces.intersection[:, at, area])
            out[:, at, area] = self._table(gain, (self.gate_bins,), (len(self.gates),))

        def rule(cell: Cell) -> ClassRule:
            at, area, gate = cell
            least = int(self.areas[area])
            return ClassRule(float(pieces.thresholds[at]), min_component=least, gate=_gate(gate))

        return Grid("components", out, rule)

    def triplet(self) -> Grid:
        """Return seed x threshold x area above the seed; a seed below its threshold is lifted."""
        places = range(0, len(self.thresholds), SEED_STEP)
        out = np.empty((self.count, len(places), len(places), len(self.areas)))
        gains = [self._gain(self.predicted[:, at], self.both[:, at]) for at in places]
        bins = [self._area_bins(self.predicted[:, at]) for at in places]
        for row, column in np.ndindex(len(places), len(places)):
            counted = (bins[max(row, column)],)
            out[:, row, column] = self._table(gains[column], counted, (len(self.areas),))

        def rule(cell: Cell) -> ClassRule:
            seed, at, area = cell
            lifted = self._at(places[seed]) if seed > at else 0.0
            return ClassRule(self._at(places[at]), int(self.areas[area]), seed=lifted)

        return Grid("triplet", out, rule)

    def soft(self) -> Grid:
        """Return threshold x minimum area x how far the gate may raise it."""
        tables = []
        for predicted, both in zip(self.predicted.T, self.both.T, strict=True):
            gain = self._gain(predicted, both)
            grown = [
                self._table(
                    gain,
                    (self._area_bins(predicted / (soft - (soft - 1) * self.seen)),),
                    (len(self.areas),),
                )
                for soft in SOFT
            ]
            tables.append(np.stack(grown, axis=-1))

        def rule(cell: Cell) -> ClassRule:
            at, area, soft = cell
            return ClassRule(self._at(at), int(self.areas[area]), soft=SOFT[soft])

        return Grid("soft gate", np.stack(tables, axis=1), rule)

    def calibrated(self, grid: Grid, plain: Grid, gate: Reliability) -> Grid:
        """Return a grid whose gate is p > 1 / (1 + q), p calibrated, q the score if kept.

        With 1 for rightly empty, keeping a mask is worth p q and dropping it 1 - p.
        """

        def fixed(excluded: Excluded) -> int:
            quality = self._quality(plain, excluded)
            level = logit(np.array(gate.curve(excluded).raw(1 / (1 + quality))))
            return 1 + int(np.abs(logit(GATES[1:]) - level).argmin())

        return Grid(f"{grid.kind}, calibrated gate", grid.gains, grid.rule, fixed)

    def _quality(self, plain: Grid, excluded: Excluded) -> float:
        """Return the mean score of what is true and kept under the rule picked without a gate."""
        if plain.kind == "components":
            assert self.pieces is not None
            at, area, _ = plain.pick(excluded)
            predicted = self.pieces.predicted[:, at, area]
            both = self.pieces.intersection[:, at, area]
        else:
            at, area, _ = plain.pick(excluded)
            predicted, both = self.predicted[:, at], self.both[:, at]
            predicted = predicted * (predicted >= self.areas[area])
        used = (self.true > 0) & (predicted > 0) & ~np.isin(self.parts, list(excluded))
        if not used.any():
            return 0.5
        scores = self.metric(both[used, None], predicted[used, None], self.true[used, None])
        return float(scores.mean())

    def _gain(self, predicted: NDArray[Any], both: NDArray[Any]) -> Float:
        true, predicted, both = self.true[:, None], predicted[:, None], both[:, None]
        nothing = np.zeros_like(true)
        kept = self.metric(both, predicted, true)
        return np.asarray((kept - self.metric(nothing, nothing, true)).ravel())

    def _table(self, gain: Float, bins: Sequence[Ints], shape: Cell) -> Float:
        """Sum gains (n,) by part and bins, then over all bins from each on: (parts, *shape)."""
        whole = (self.count, *shape)
        at = np.ravel_multi_index((self.parts, *bins), whole)
        table = np.bincount(at, gain, minlength=int(np.prod(whole))).reshape(whole)
        for axis in range(1, len(whole)):
            table = np.flip(np.flip(table, axis).cumsum(axis=axis), axis)
        return np.asarray(table, np.float64)

    def _area_bins(self, areas: NDArray[Any]) -> Ints:
        return np.searchsorted(self.areas, areas, side="right") - 1

    def _at(self, place: int) -> float:
        return float(self.thresholds[place])


def _gate(place: int) -> float:
    return round(float(GATES[place]), 4)

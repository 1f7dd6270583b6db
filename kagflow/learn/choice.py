"""Choose an ensemble's members and their weights, inside the data and then without each part.

Every candidate is judged on parts that it was not made on; a fancier one is taken only where it
gains more than one standard error over the plainer. The whole of that is done again without each
part, so that the part can say what the choosing is worth.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from kagflow.infer.postprocess import ClassRule
from kagflow.learn import candidates
from kagflow.learn.blend import Blend
from kagflow.learn.calibrate import log_loss
from kagflow.learn.candidates import KINDS
from kagflow.learn.evidence import Evidence
from kagflow.learn.grids import EPS, Excluded, Grid, total_grids
from kagflow.learn.search import EMPTY, count_rules, default_score, standard_error
from kagflow.learn.sketch import Trials
from kagflow.progress import QUIET, Progress
from kagflow.task.metric import Metric
from kagflow.task.score import score_counts

LOGITS = "logits"
NONE: Excluded = frozenset()
Ints = NDArray[np.int64]


@dataclass(frozen=True)
class Costs:
    """Seconds an image of each mask and label member, and the most that all may take together."""

    members: tuple[float, ...]
    gates: tuple[float, ...] = ()
    limit: float = float("inf")


@dataclass(frozen=True)
class Candidate:
    """Hold a kind of ensemble and three scores of it, from the sketch.

    `gain` over the best plainer kind and its `error`, one standard error, are cross-fitted;
    `taken` tells whether it became the choice so far.
    """

    kind: str
    blend: Blend
    naive: float
    crossfitted: float
    default: float
    gain: float
    error: float
    taken: bool


@dataclass(frozen=True)
class Chosen:
    """Hold the blends of masks and of gates, and what they would be without each part.

    `singles` are the best lone member: in all the data, then without each part.
    """

    kind: str
    blend: Blend
    turns: tuple[Blend, ...]
    gate: Blend | None
    gate_turns: tuple[Blend | None, ...]
    singles: tuple[Blend, ...]
    table: tuple[Candidate, ...]


class Judge:
    """Tell what blends gain over predicting nothing; a blend is counted once, then looked up."""

    def __init__(
        self, trials: Trials, metric: Metric, parts: Ints, costs: Costs, *, gated: bool = True
    ) -> None:
        self.trials, self.metric, self.parts, self.costs = trials, metric, parts, costs
        masks = trials.pool.spec.kind == "segmentation"
        self.labels = trials.pool.labels if masks and gated else trials.pool.labels[:0]
        self.count = int(parts.max()) + 1
        self._grids: dict[tuple[Blend, Blend | None], list[Grid]] = {}
        self._made: dict[Excluded, dict[str, Blend]] = {}
        self._gates: dict[Excluded, Blend | None] = {}

    def gate(self, excluded: Excluded) -> Blend | None:
        """Return the mean of label members that loses least on the parts that are left."""
        if excluded not in self._gates:
            self._gates[excluded] = self._choose_gate(excluded)
        return self._gates[excluded]

    def evidence(self, blend: Blend, gate: Blend | None) -> Evidence:
        """Return what the sketch says of a blend under a gate."""
        seen = self.trials.evidence(blend)
        return seen if gate is None else replace(seen, gate=gate.mean(list(self.labels)))

    def grids(self, blend: Blend, excluded: Excluded) -> list[Grid]:
        """Return the tables of a blend, under the gate that is chosen without some parts."""
        key = (blend, self.gate(excluded))
        if key not in self._grids:
            self._grids[key] = total_grids(self.evidence(*key), self.metric, self.parts)
        return self._grids[key]

    def gain(self, blend: Blend, excluded: Excluded) -> float:
        """Return what the best rules gain on the parts that are left."""
        return sum(max(0.0, grid.inside(excluded)) for grid in self.grids(blend, excluded))

    def outside(self, blend: Blend, excluded: Excluded, part: int) -> float:
        """Return what rules made without some parts gain on one of them."""
        return sum(
            float(grid.gains[(part, *grid.pick(excluded))])
            for grid in self.grids(blend, excluded)
            if grid.inside(excluded) > EPS
        )

    def rules(self, blend: Blend, excluded: Excluded) -> list[ClassRule]:
        """Return each class's best rule on the parts that are left, nothing where none gains."""
        return [
            grid.rule(grid.pick(excluded)) if grid.inside(excluded) > EPS else EMPTY
            for grid in self.grids(blend, excluded)
        ]

    def made(self, excluded: Excluded) -> dict[str, Blend]:
        """Return a blend of every kind, made without some parts."""
        if excluded not in self._made:
            self._made[excluded] = candidates.make_all(
                self.trials.members,
                lambda blend: self.gain(blend, excluded),
                lambda blend: self._fits(blend, excluded),
            )
        return self._made[excluded]

    def _fits(self, blend: Blend, excluded: Excluded) -> bool:
        gate = self.gate(excluded)
        spent = sum(self.costs.members[at] for at in blend.members)
        spent += sum(self.costs.gates[at] for at in gate.members) if gate else 0.0
        return spent <= self.costs.limit

    def _choose_gate(self, excluded: Excluded) -> Blend | None:
        """Return the equal mean of the best k label members by log loss, k by the same rule.

        The log loss needs no rule and little data, which matters more here than the metric does.
        """
        count = len(self.labels)
        if not count:
            return None
        present = self.trials.pool.true > 0
        kept = [part for part in range(self.count) if part not in excluded]

        def losses(blend: Blend) -> NDArray[np.float64]:
            lost = log_loss(blend.mean(list(self.labels)), present).mean(axis=1)
            return np.bincount(self.parts, lost, minlength=self.count)[kept].astype(np.float64)

        cheapest = min(self.costs.members)
        order = sorted(range(count), key=lambda at: float(losses(Blend.of([at], count)).sum()))
        best: Blend | None = None
        for more in range(1, count + 1):
            blend = Blend.of(order[:more], count)
            spent = cheapest + sum(self.costs.gates[at] for at in blend.members)
            if spent > self.costs.limit:
                break
            gained = losses(best) - losses(blend) if best else np.array([np.inf])
            if gained.sum() > standard_error(gained) + EPS:
                best = blend
        return best


@dataclass(frozen=True)
class _Rung:
    """A kind of ensemble, what it gains on each part that it was not made on, and its ascent."""

    kind: str
    outside: NDArray[np.float64]
    gain: float = 0.0
    error: float = 0.0
    taken: bool = True
    logits: bool = False


def choose(judge: Judge, progress: Progress = QUIET) -> Chosen:
    """Climb from the plainest kind to the fanciest that is worth it, and again without each part.

    At least one member has to be within the time limit.
    """
    progress.start("choose members", judge.count + 1, "turns")
    rungs = _climb(judge, NONE)
    top = next(rung for rung in reversed(rungs) if rung.taken)
    progress.advance()
    tops = []
    for part in range(judge.count):
        climbed = _climb(judge, frozenset({part}))
        tops.append(next(rung for rung in reversed(climbed) if rung.taken))
        progress.advance()
    progress.finish()
    return Chosen(
        kind=f"{top.kind}, {LOGITS}" if top.logits else top.kind,
        blend=_blend(judge, top, NONE),
        turns=tuple(_blend(judge, one, frozenset({part})) for part, one in enumerate(tops)),
        gate=judge.gate(NONE),
        gate_turns=tuple(judge.gate(frozenset({part})) for part in range(judge.count)),
        singles=tuple(judge.made(without)[KINDS[0]] for without in _turns(judge)),
        table=tuple(_describe(judge, rung) for rung in rungs),
    )


def sole(judge: Judge) -> Chosen:
    """Return the one member there is; only the gates are a choice."""
    blend = Blend((1,))
    gates = [judge.gate(without) for without in _turns(judge)]
    return Chosen(
        kind=KINDS[0],
        blend=blend,
        turns=(blend,) * judge.count,
        gate=gates[0],
        gate_turns=tuple(gates[1:]),
        singles=(blend,) * (judge.count + 1),
        table=(),
    )


def _turns(judge: Judge) -> list[Excluded]:
    """Leave out nothing, then each part."""
    return [NONE, *(frozenset({part}) for part in range(judge.count))]


def _climb(judge: Judge, excluded: Excluded) -> list[_Rung]:
    parts = [part for part in range(judge.count) if part not in excluded]

    def outside(kind: str, *, logits: bool) -> NDArray[np.float64]:
        gained = []
        for part in parts:
            without = excluded | {part}
            blend = replace(judge.made(without)[kind], logits=logits)
            gained.append(judge.outside(blend, without, part))
        return np.array(gained)

    top = _Rung(KINDS[0], outside(KINDS[0], logits=False))
    rungs = [top]
    for kind in KINDS[1:]:
        rungs.append(_rung(kind, top, outside(kind, logits=False)))
        top = rungs[-1] if rungs[-1].taken else top
    if len(judge.made(excluded)[top.kind].members) > 1:
        rungs.append(_rung(top.kind, top, outside(top.kind, logits=True), logits=True))
    return rungs


def _rung(kind: str, top: _Rung, outside: NDArray[np.float64], *, logits: bool = False) -> _Rung:
    more = outside - top.outside
    gain, error = float(more.sum()), standard_error(more)
    return _Rung(kind, outside, gain, error, taken=gain > error + EPS, logits=logits)


def _blend(judge: Judge, rung: _Rung, excluded: Excluded) -> Blend:
    return replace(judge.made(excluded)[rung.kind], logits=rung.logits)


def _describe(judge: Judge, rung: _Rung) -> Candidate:
    """Score a candidate on the sketch: as it was made, without each part, and at default rules."""
    blend = _blend(judge, rung, NONE)
    seen = judge.evidence(blend, judge.gate(NONE))
    outside = np.zeros((3, *seen.true.shape), np.int64)
    for part in range(judge.count):
        without = frozenset({part})
        turn = _blend(judge, rung, without)
        rows = judge.parts == part
        there = seen
        if (turn, judge.gate(without)) != (blend, judge.gate(NONE)):
            there = judge.evidence(turn, judge.gate(without))
        outside[:, rows] = count_rules(there, judge.rules(turn, without))[:, rows]
    inside = count_rules(seen, judge.rules(blend, NONE))
    scale = seen.true.size
    return Candidate(
        kind=rung.kind,
        blend=blend,
        naive=score_counts(judge.metric, *inside).value,
        crossfitted=score_counts(judge.metric, *outside).value,
        default=default_score(seen, judge.metric).value,
        gain=rung.gain / scale,
        error=rung.error / scale,
        taken=rung.taken,
    )

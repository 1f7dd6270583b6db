"""Find each class's rule, and say what the finding is worth.

A choice is judged on parts of the data that it was not made on. That holds for every choice, the
last one too: the kind of rule (nothing, the default, tuned in one way or another) is chosen by
cross-fitting inside the parts that are left when the part that judges is taken away.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from kagflow.infer.postprocess import ClassRule
from kagflow.learn.calibrate import Reliability
from kagflow.learn.evidence import Evidence
from kagflow.learn.grids import EPS, Excluded, Grid, make_grids
from kagflow.task.metric import Metric
from kagflow.task.score import Score, score_counts

PARTS = 10
NOTHING = "nothing"
EMPTY = ClassRule(empty=True)
_NONE: Excluded = frozenset()

Ints = NDArray[np.int64]


class Choice(NamedTuple):
    """A class's kind of rule, by name, and its rule."""

    kind: str
    rule: ClassRule


@dataclass(frozen=True)
class Found:
    """Hold the rules of C classes and three scores on the same images.

    `naive` is that of the rules on the images that they were tuned on, `crossfitted` that of the
    whole procedure on parts that it had not seen, `default` that of threshold .5 alone. `outside`
    (3, N, C) is what the cross-fitted score is of: intersection, predicted, true; `parts` (N,)
    are the parts; `kinds` name the rules.
    """

    rules: tuple[ClassRule, ...]
    kinds: tuple[str, ...]
    naive: Score
    crossfitted: Score
    default: Score
    outside: Ints = field(compare=False)
    parts: Ints = field(compare=False)


def search(evidence: Evidence, metric: Metric, turns: Sequence[Evidence] | None = None) -> Found:
    """Tune every class on its own.

    `turns` are what is known without each part, where that is not the same: the maps of an
    ensemble that was chosen without it. Predicting nothing is always a candidate, so a class is
    predicted only where that gains on unseen parts.
    """
    parts = make_parts(evidence.clusters, evidence.true > 0)
    count = int(parts.max()) + 1
    turns = [evidence] * count if turns is None else turns
    known: dict[int, list[list[Grid]]] = {}
    for one in (evidence, *turns):
        if id(one) not in known:
            known[id(one)] = all_grids(one, metric, parts)
    outside = np.zeros((3, *evidence.true.shape), np.int64)
    for part, turn in enumerate(turns):
        rules = [choose(grids, frozenset({part})).rule for grids in known[id(turn)]]
        rows = parts == part
        outside[:, rows] = count_rules(turn, rules)[:, rows]
    crossfitted, default = score_counts(metric, *outside), default_score(evidence, metric)
    empty = score_counts(metric, *count_rules(evidence, [EMPTY] * evidence.true.shape[1]))
    choices = _guarded(
        [choose(grids) for grids in known[id(evidence)]], crossfitted, default, empty
    )
    if crossfitted.value <= empty.value + EPS:
        # What predicts nothing is worth the floor: nothing was fitted that could flatter it.
        choices = [Choice(NOTHING, EMPTY)] * len(choices)
        outside = count_rules(evidence, [EMPTY] * len(choices))
    return Found(
        rules=tuple(one.rule for one in choices),
        kinds=tuple(one.kind for one in choices),
        naive=score_counts(metric, *count_rules(evidence, [one.rule for one in choices])),
        crossfitted=score_counts(metric, *outside),
        default=default,
        outside=outside,
        parts=parts,
    )


def _guarded(
    choices: Sequence[Choice], crossfitted: Score, default: Score, empty: Score
) -> list[Choice]:
    """Leave a class at its default, or empty, where that is better than tuning it on unseen parts.

    The score that is reported stays that of the tuning: this last look may only make it too low.
    """
    kept = []
    for index, one in enumerate(choices):
        plainer = [(default.per_class[index], Choice("default", ClassRule()))]
        plainer.append((empty.per_class[index], Choice(NOTHING, EMPTY)))
        worth, best = max(plainer, key=lambda pair: pair[0])
        kept.append(best if worth > crossfitted.per_class[index] + EPS else one)
    return kept


def all_grids(evidence: Evidence, metric: Metric, parts: Ints) -> list[list[Grid]]:
    """Return every class's kinds of rule."""
    return [
        make_grids(evidence, metric, index, parts, reliability(evidence, index, parts))
        for index in range(evidence.true.shape[1])
    ]


def reliability(evidence: Evidence, index: int, parts: Ints) -> Reliability | None:
    """Count how well the gate knows a class; None without label members."""
    if evidence.gate is None:
        return None
    return Reliability(evidence.gate[:, index], evidence.true[:, index] > 0, parts)


def choose(grids: Sequence[Grid], excluded: Excluded = _NONE) -> Choice:
    """Return the kind of rule that gains most on parts it was not tuned on.

    Nothing gains nothing; a kind that needs more tuning has to gain more than a plainer one.
    """
    kept = [part for part in range(len(grids[0].gains)) if part not in excluded]
    best: Grid | None = None
    worth = np.zeros(len(kept))
    for grid in grids:
        if len(kept) < 2 and grid.gains[0].size > 1:
            continue
        outside = np.array([grid.gains[part][grid.pick(excluded | {part})] for part in kept])
        # Asking for a standard error more loses more than it protects (measured in made-up worlds).
        if outside.sum() > worth.sum() + EPS:
            best, worth = grid, outside
    if best is None:
        return Choice(NOTHING, EMPTY)
    return Choice(best.kind, best.rule(best.pick(excluded)))


def standard_error(values: NDArray[np.float64]) -> float:
    """Return the standard error of the sum of what parts gain."""
    return float(np.sqrt(len(values)) * values.std(ddof=1)) if len(values) > 1 else 0.0


def count_rules(evidence: Evidence, rules: Sequence[ClassRule]) -> Ints:
    """Count under one rule a class: intersection, predicted, true as (3, N, C)."""
    out = np.zeros((3, *evidence.true.shape), np.int64)
    out[2] = evidence.true
    for index, rule in enumerate(rules):
        if not rule.empty:
            out[0, :, index], out[1, :, index] = evidence.under(rule, index)
    return out


def default_score(evidence: Evidence, metric: Metric) -> Score:
    """Score the untuned rule: threshold .5, any area, no gate."""
    return score_counts(metric, *default_counts(evidence))


def default_counts(evidence: Evidence) -> Ints:
    """Count under the untuned rule: intersection, predicted, true as (3, N, C)."""
    return count_rules(evidence, [ClassRule()] * evidence.true.shape[1])


def untuned(evidence: Evidence, metric: Metric, turns: Sequence[Evidence] | None = None) -> Found:
    """Return the default rules, for competitions where there is nothing to tune."""
    score, classes = default_score(evidence, metric), evidence.true.shape[1]
    parts = make_parts(evidence.clusters, evidence.true > 0)
    outside = default_counts(evidence)
    for part, turn in enumerate(turns or ()):
        outside[:, parts == part] = default_counts(turn)[:, parts == part]
    return Found(
        rules=(ClassRule(),) * classes,
        kinds=("default",) * classes,
        naive=score,
        crossfitted=score_counts(metric, *outside),
        default=score,
        outside=outside,
        parts=parts,
    )


def make_parts(clusters: Ints, present: NDArray[np.bool_]) -> Ints:
    """Deal near-duplicate groups into at most 10 parts: (N,) int64, parts count from 0.

    Groups with the same classes `present` (N, C) are dealt in turn, so each part has its share.
    """
    _, which = np.unique(clusters, return_inverse=True)
    shown = np.zeros((which.max() + 1, present.shape[1]), bool)
    np.logical_or.at(shown, which, present)
    shuffled = np.random.default_rng(0).permutation(len(shown))
    order = shuffled[np.lexsort(shown[shuffled].T)]
    part = np.empty(len(shown), np.int64)
    part[order] = np.arange(len(shown)) % min(PARTS, len(shown))
    dealt: Ints = part[which]
    return dealt

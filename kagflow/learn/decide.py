"""From members to rules: who counts how much, then post-processing, then what both are worth."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import NamedTuple

from kagflow.learn.blend import Blend
from kagflow.learn.choice import Chosen, Judge, choose, sole
from kagflow.learn.evidence import Evidence
from kagflow.learn.search import Found, search, untuned
from kagflow.progress import QUIET, Progress

# Counts blends of the members from all that is known of them.
Count = Callable[[Sequence[Blend]], Sequence[Evidence]]


class Decision(NamedTuple):
    """Members and weights, what their blend says of every image, and the rules with their worth."""

    chosen: Chosen
    evidence: Evidence
    found: Found


def decide(judge: Judge, count: Count, progress: Progress = QUIET) -> Decision:
    """Choose members, then tune rules on their blend, and cross-fit both as one.

    What a part says of the rules comes from the members and weights that were chosen without it.
    """
    trials = judge.trials
    chosen = sole(judge) if trials.members == 1 else choose(judge, progress)
    blends = list(dict.fromkeys([chosen.blend, *chosen.turns]))
    counted = dict(zip(blends, count(blends), strict=True))
    pairs = [(chosen.blend, chosen.gate), *zip(chosen.turns, chosen.gate_turns, strict=True)]
    seen = {pair: _gated(counted[pair[0]], pair[1], judge) for pair in pairs}
    evidence, turns = seen[pairs[0]], [seen[pair] for pair in pairs[1:]]
    # The most probable of exclusive classes is what it is: there is no threshold to find.
    spec = trials.pool.spec
    single = spec.kind == "classification" and spec.exclusive
    found = (untuned if single else search)(evidence, judge.metric, turns)
    return Decision(chosen, evidence, found)


def _gated(evidence: Evidence, gate: Blend | None, judge: Judge) -> Evidence:
    return evidence if gate is None else replace(evidence, gate=gate.mean(list(judge.labels)))

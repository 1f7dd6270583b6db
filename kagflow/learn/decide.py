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
# Masks and gate in all the data, then without each part.
_Pairs = Sequence[tuple[Blend, Blend | None]]


class Decision(NamedTuple):
    """Members and weights, what their blend says of every image, and the rules with their worth.

    `ungated` and `single` are what rules without the gate, and on the best lone member, find; None
    where that is the same.
    """

    chosen: Chosen
    evidence: Evidence
    found: Found
    ungated: Found | None
    single: Found | None


def decide(judge: Judge, count: Count, progress: Progress = QUIET) -> Decision:
    """Choose members, then tune rules on their blend, and cross-fit both as one.

    What a part says of the rules comes from the members and weights that were chosen without it.
    """
    chosen = sole(judge) if judge.trials.members == 1 else choose(judge, progress)
    blends, gates = (chosen.blend, *chosen.turns), (chosen.gate, *chosen.gate_turns)
    each = list(dict.fromkeys([*blends, *chosen.singles]))
    counted = _Counted(judge, dict(zip(each, count(each), strict=True)))
    pairs = list(zip(blends, gates, strict=True))
    found = counted.search(pairs)
    ungated = [(blend, None) for blend, _ in pairs]
    single = list(zip(chosen.singles, gates, strict=True))
    return Decision(
        chosen,
        counted.evidence(pairs[0]),
        found,
        counted.search(ungated) if any(gates) else None,
        counted.search(single) if single != pairs else None,
    )


class _Counted:
    """Blends that are counted, under gates."""

    def __init__(self, judge: Judge, blends: dict[Blend, Evidence]) -> None:
        self.judge, self.blends = judge, blends
        self._gated: dict[tuple[Blend, Blend | None], Evidence] = {}

    def evidence(self, pair: tuple[Blend, Blend | None]) -> Evidence:
        """Return what a blend says under a gate: the same object for the same pair."""
        if pair not in self._gated:
            blend, gate = pair
            seen = self.blends[blend]
            if gate is not None:
                seen = replace(seen, gate=gate.mean(list(self.judge.labels)))
            self._gated[pair] = seen
        return self._gated[pair]

    def search(self, pairs: _Pairs) -> Found:
        """Tune rules on the first pair, cross-fitted by the others."""
        evidence, *turns = (self.evidence(pair) for pair in pairs)
        # The most probable of exclusive classes is what it is: there is no threshold to find.
        spec = self.judge.trials.pool.spec
        single = spec.kind == "classification" and spec.exclusive
        return (untuned if single else search)(evidence, self.judge.metric, turns)

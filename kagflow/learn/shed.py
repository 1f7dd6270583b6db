"""In which order an ensemble gives up its members when time is short."""

from __future__ import annotations

from kagflow.learn.choice import NONE, Chosen, Judge
from kagflow.learn.grids import EPS
from kagflow.learn.search import Found


def shedding(judge: Judge, chosen: Chosen, found: Found) -> list[tuple[int, float, float]]:
    """List members in the order in which to give them up: number, worth, seconds an image.

    Each time the one goes that is worth least for each second; its worth is what the others then
    score less, in units of the metric. The last is worth what there is above the floor.
    """
    order = []
    blend, scale = chosen.blend, judge.trials.pool.true.size
    while len(blend.members) > 1:
        whole = judge.gain(blend, NONE)
        lost = {at: (whole - judge.gain(blend.without(at), NONE)) / scale for at in blend.members}
        first = min(lost, key=lambda at: (lost[at] / max(judge.costs.members[at], EPS), at))
        order.append((first, lost[first], judge.costs.members[first]))
        blend = blend.without(first)
    (last,) = blend.members
    left = found.naive.value - found.naive.floor - sum(worth for _, worth, _ in order)
    return [*order, (last, left, judge.costs.members[last])]

"""How long a pack will take on an accelerator of Kaggle, from what packs took here and there.

Forward and host are scaled apart: a member seen there counts as measured there; another one is
scaled by what the members that ran in both places took there for each second here, decoding and
post-processing by their own ratio, and so is all that comes before the first image. A ratio is
believed only of the machine that it was measured on.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from kagflow.task.costs import Costs, Pair

# Below this share of the limit a projection is good, above it bad.
GOOD = 0.8
# Standard deviation of a logarithm of a ratio: at least, and where one member alone was seen.
LEAST_SPREAD, UNKNOWN_SPREAD = 0.08, 0.15
# Of a normal distribution: 95 of 100 lie below so many standard deviations.
_P95 = 1.645
# The kernel compares so many stored answers; a rehearsal may have compared fewer.
_PARITY = 8


@dataclass(frozen=True)
class Projection:
    """Hold minutes: as likely less as more, and what 95 of 100 runs stay below.

    Where nothing is calibrated, `p95` is None, `minutes` is everything at this machine's pace, and
    `least` the work around the models alone.
    """

    minutes: float
    p95: float | None
    least: float
    said: str

    @property
    def calibrated(self) -> bool:
        """Whether the accelerator itself was measured."""
        return self.p95 is not None


def project(here: Costs, pairs: Iterable[Pair], images: int) -> Projection:
    """Project what a rehearsed pack takes for `images`, from pairs of one accelerator."""
    found = sorted(pairs, key=lambda pair: pair.at)
    # What comes under one name may change: only the machine that came last counts.
    found = [pair for pair in found if pair.there.machine == found[-1].there.machine]
    scale = _scale(here, found) if found else None
    if scale is None:
        least = here.setup + images * max(here.host, here.rest)
        whole = here.setup + _parity(here) + images * here.each
        return Projection(
            whole / 60, None, least / 60, "nothing was measured on the accelerator yet"
        )
    usual = _seconds(scale, images)
    slow = _seconds(scale, images, share=_share95(here), slower=math.exp(_P95 * scale.spread))
    least = scale.costs.setup + images * scale.costs.host
    return Projection(usual / 60, slow / 60, least / 60, scale.said)


@dataclass(frozen=True)
class _Scale:
    """Hold this pack's costs as they would be there."""

    costs: Costs
    setup: float
    spread: float
    said: str


def _scale(here: Costs, pairs: Sequence[Pair]) -> _Scale | None:
    """Return the costs there; None where a member is neither seen there nor can be scaled."""
    seen = _seen(pairs)
    both = [pair for pair in pairs if pair.here.machine == here.machine]
    logs = _ratios(both)
    strange = [one.name for one in here.members if one.key not in seen]
    if strange and not logs:
        return None
    ratio = math.exp(statistics.median(logs)) if logs else 1.0
    members = tuple(
        replace(one, seconds=seen.get(one.key, one.seconds * ratio)) for one in here.members
    )
    host = _middle(pair.there.host / pair.here.host for pair in both if pair.here.host > 0)
    setup = _middle(pair.there.setup / pair.here.setup for pair in both if pair.here.setup > 0)
    last = pairs[-1].there
    costs = replace(
        here,
        machine=last.machine,
        lanes=last.lanes,
        members=members,
        decode=here.host * host if host else last.host,
        finish=0.0,
        rest=here.rest * host if host else last.rest,
        parity=_parity(here) * ratio,
        parity_images=_PARITY,
    )
    said = f"{len(here.members) - len(strange)} of {len(here.members)} members measured there"
    if strange:
        said += f", the others at {ratio:.2f} s there for 1 s here"
    return _Scale(costs, here.setup * setup if setup else last.setup, _spread(logs), said)


def _seconds(
    scale: _Scale, images: int, *, share: float | None = None, slower: float = 1.0
) -> float:
    costs = scale.costs
    each = max(costs.forward(share) / costs.lanes + costs.rest, costs.host)
    return scale.setup + slower * (costs.parity + images * each)


def _seen(pairs: Sequence[Pair]) -> dict[str, float]:
    """Return what members took there, by key."""
    known: dict[str, list[float]] = {}
    for pair in pairs:
        for one in pair.there.members:
            known.setdefault(one.key, []).append(one.seconds)
    return {key: statistics.median(values) for key, values in known.items()}


def _ratios(pairs: Sequence[Pair]) -> list[float]:
    """Return the logarithm of there / here of every member that ran in both places."""
    logs = []
    for pair in pairs:
        here = {one.key: one.seconds for one in pair.here.members}
        logs += [
            math.log(one.seconds / here[one.key])
            for one in pair.there.members
            if here.get(one.key, 0.0) > 0 and one.seconds > 0
        ]
    return logs


def _spread(logs: Sequence[float]) -> float:
    if len(logs) < 2:
        return UNKNOWN_SPREAD
    return max(statistics.stdev(logs), LEAST_SPREAD)


def _middle(values: Iterable[float]) -> float | None:
    found = list(values)
    return statistics.median(found) if found else None


def _parity(here: Costs) -> float:
    """Return what the kernel's stored answers would take here."""
    return here.parity * _PARITY / here.parity_images if here.parity_images else here.parity


def _share95(here: Costs) -> float:
    """Return the share of images that pass the gates, at the upper end of what few images tell."""
    if not here.gated:
        return 1.0
    # Two images of each kind beforehand, so that none of few is not none at all.
    share = (here.passed + 2) / (here.gated + 4)
    deviation = math.sqrt(share * (1 - share) / (here.gated + 4))
    return min(max(share + _P95 * deviation, here.share), 1.0)

"""Ways to put an ensemble together, from the plainest to the most tuned.

Caruana et al., "Ensemble Selection from Libraries of Models" (2004), with its three guards against
overfitting: members are taken with replacement, the start is the best prefix of the sorted members,
and selections from random bags of members are averaged.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from kagflow.learn.blend import Blend

# What a blend is worth on the images that may be looked at.
Worth = Callable[[Blend], float]
# Whether a blend is within the time limit.
Fits = Callable[[Blend], bool]

KINDS = ("single", "equal", "bagged greedy", "greedy")
BAGS = 10
# Members that greedy selection may add to its start, for each member there is.
_ADDED = 2
_START = 2
# Hundredths are as fine as weights get.
_FINE = 100
_EPS = 1e-9


def make_all(members: int, worth: Worth, fits: Fits) -> dict[str, Blend]:
    """Return one blend of each kind; all of them fit where any single member does."""
    everyone = range(members)
    order = _sorted(everyone, members, worth, fits)
    bagged = _bagged(members, worth, fits)
    blends = (
        Blend.of(order[:1], members),
        _best_prefix(order, members, worth, fits),
        bagged,
        greedy(everyone, members, worth, fits),
    )
    return dict(zip(KINDS, blends, strict=True))


def greedy(among: Sequence[int], members: int, worth: Worth, fits: Fits) -> Blend:
    """Start from the best prefix, then add whichever member helps most, while one does."""
    best = _best_prefix(_sorted(among, members, worth, fits), members, worth, fits)
    # Counted twice, so that one more of a member is a small step.
    chosen = [at for at in best.members for _ in range(_START * best.counts[at])]
    reached = worth(best)
    for _ in range(_ADDED * len(among)):
        grown = [(Blend.of([*chosen, at], members), at) for at in among]
        more = [(worth(blend), -at) for blend, at in grown if fits(blend)]
        if not more or max(more)[0] <= reached + _EPS:
            break
        reached, added = max(more)
        chosen.append(-added)
    return Blend.of(chosen, members)


def _sorted(among: Sequence[int], members: int, worth: Worth, fits: Fits) -> list[int]:
    singles = [(at, Blend.of([at], members)) for at in among]
    return sorted(
        (at for at, one in singles if fits(one)), key=lambda at: -worth(_alone(at, members))
    )


def _alone(at: int, members: int) -> Blend:
    return Blend.of([at], members)


def _best_prefix(order: Sequence[int], members: int, worth: Worth, fits: Fits) -> Blend:
    """Return the best equal mean of the first k, skipping members that no longer fit."""
    chosen: list[int] = []
    prefixes = []
    for at in order:
        if fits(Blend.of([*chosen, at], members)):
            chosen.append(at)
            prefixes.append(Blend.of(chosen, members))
    return max(prefixes, key=worth)


def _bagged(members: int, worth: Worth, fits: Fits) -> Blend:
    """Average greedy selections from bags of half the members; the least go where it costs."""
    rng = np.random.default_rng(0)
    total = np.zeros(members)
    for _ in range(BAGS):
        bag = rng.permutation(members)[: max(2, (members + 1) // 2)].tolist()
        bag = sorted(at for at in bag if fits(_alone(at, members)))
        if bag:
            total += greedy(bag, members, worth, fits).weights
    counts = np.rint(total / max(total.sum(), 1) * _FINE).astype(np.int64)
    for least in np.argsort(counts, kind="stable").tolist():
        if counts.any() and fits(Blend(tuple(counts.tolist()))):
            break
        counts[least] = 0
    if not counts.any():
        return greedy(range(members), members, worth, fits)
    return Blend(tuple(counts.tolist()))

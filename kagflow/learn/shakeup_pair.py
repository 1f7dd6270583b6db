"""Choose the two finals: the pair whose better half is expected to score highest on private."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np

from kagflow.errors import UsageError
from kagflow.learn.shakeup_posterior import Beliefs
from kagflow.learn.shakeup_sampling import Float

# Files that agree fail together, also in ways that no draw knows: among pairs that cost no more
# than this much of the expected maximum, the one that agrees least is taken. In made-up worlds it
# cost nothing on average and gained where private differed from public.
DIVERSITY_COST = 2e-4
# The same in chance of a medal.
MEDAL_COST = 0.005
MEDALS = ("gold", "silver", "bronze")


@dataclass(frozen=True)
class Pair:
    """Hold the chosen candidates' places and what choosing them is worth.

    `value` is the expected maximum of their private scores, or the chance of a medal; `best` that
    of those that would have been taken without forcing diversity, `alike` the places of these
    where they were passed over.
    """

    places: tuple[int, ...]
    value: float
    correlation: float
    best: float
    alike: tuple[int, ...] | None


def expected_maximum(worth: Float, places: Sequence[int]) -> float:
    """Return E[max] over joint draws (draws, J) of some candidates."""
    return float(worth[:, list(places)].max(axis=1).mean())


def pick(
    beliefs: Beliefs,
    allowed: Sequence[int],
    *,
    finals: int = 2,
    worth: Float | None = None,
    cost: float | None = None,
) -> Pair:
    """Return the best finals of the allowed candidates, forced apart where it costs little.

    `worth` (draws, J) is what is maximised, the private scores unless given. Raises UsageError
    where nothing is allowed.
    """
    if not allowed:
        raise UsageError("there is no submission to choose from", hint="kagflow submit")
    values = beliefs.private if worth is None else worth
    means = beliefs.private.mean(axis=0)
    choices = combinations(sorted(allowed), min(finals, len(allowed)))
    worths = {places: expected_maximum(values, places) for places in choices}
    # Where the worth is a chance, many are equal: then the higher scores.
    first = max(worths, key=lambda places: (worths[places], means[list(places)].sum()))
    cost = DIVERSITY_COST if cost is None else cost
    near = [places for places in worths if worths[places] >= worths[first] - cost]
    chosen = min(near, key=lambda places: (likeness(beliefs, places), -worths[places]))
    return Pair(
        places=chosen,
        value=worths[chosen],
        correlation=likeness(beliefs, chosen),
        best=worths[first],
        alike=None if chosen == first else first,
    )


def likeness(beliefs: Beliefs, places: Sequence[int]) -> float:
    """Return the highest correlation of per-image scores among some candidates; 0 for one."""
    return max((float(beliefs.correlation[a, b]) for a, b in combinations(places, 2)), default=0.0)


def medal_rank(teams: int, medal: str) -> int:
    """Return the last rank that wins a medal among so many teams.

    Kaggle's progression rules, as MLE-bench grades by them: under 100 teams 10, 20 and 40 %, under
    250 the first 10, 20 and 40 %, under 1000 the first 10 + 0.2 %, 50 and 100, else 10 + 0.2 %,
    5 and 10 %.
    """
    if medal not in MEDALS:
        raise UsageError(f"no medal '{medal}'", hint=f"there are: {', '.join(MEDALS)}")
    few = teams < 250
    ranks = {
        "gold": teams / 10 if teams < 100 else 10 if few else 10 + teams * 0.002,
        "silver": teams * 0.2 if few else 50 if teams < 1000 else teams * 0.05,
        "bronze": teams * 0.4 if few else 100 if teams < 1000 else teams * 0.1,
    }
    return max(1, int(ranks[medal]))


def medal_worth(beliefs: Beliefs, public: Sequence[float | None], cut: float) -> Float:
    """Return whether each draw reaches the medal: (draws, J) of 0 and 1.

    `cut` is the public score that wins it now. The private one is taken to lie as far from it as
    our own files' private scores lie, on average, from their public ones. Raises UsageError where
    none of ours has a public score.
    """
    known = [at for at, score in enumerate(public) if score is not None]
    if not known:
        raise UsageError("the medal line is public, and no submission of ours has a public score")
    ours = np.array([public[at] for at in known], np.float64)
    shift = beliefs.private[:, known].mean(axis=1) - ours.mean()
    return np.asarray(beliefs.private - shift[:, None] >= cut, np.float64)

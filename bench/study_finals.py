"""Which two finals kagflow would have ticked among the study's submissions, and what they scored.

Candidates are the arms' first seeds. What the public half of the hidden part says is given, as on
Kaggle; the private half judges. Of two finals the better one counts.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import quality_stats as stats
from numpy.typing import NDArray

from kagflow.learn.shakeup import Asked, Candidate, advise
from kagflow.learn.shakeup_posterior import Sizes
from kagflow.learn.shakeup_sampling import Paired

WHERE = "private half of the hidden part"
FINALS = 2
Found = tuple[str, str, stats.Paired, str, str, str, str]


def compare(named: Mapping[str, dict[str, Any]], images: Mapping[str, Any]) -> list[Found]:
    """Set kagflow's pair beside the two best on public, out of fold, and in hindsight.

    Return where, what, the paired private scores, the verdict, and the cells behind it.
    """
    names = list(named)
    outside = np.array([named[name]["oof"]["final"] for name in names])
    hidden = np.array([named[name]["hidden"]["final"] for name in names])
    public = np.array(images["public"], bool)
    private = hidden[:, ~public]
    seen = hidden[:, public].mean(axis=1)
    groups = np.array(images["hidden"])[~public]
    paired = Paired(outside, np.array(images["oof"]))
    pair = picked(names, paired, seen, Sizes(int(public.sum()), int((~public).sum())))
    ours = better(pair, private)
    found = []
    for what, order in (
        ("the two best on public", seen),
        ("the two best out of fold", outside.mean(axis=1)),
        ("the best two in hindsight", private.mean(axis=1)),
    ):
        other = [int(at) for at in np.argsort(-order, kind="stable")[:FINALS]]
        theirs = better(other, private)
        both = stats.paired([private[ours]], [private[theirs]], groups)
        text = f"pick-two / {what} ({_said(names, pair)} / {_said(names, other)})"
        word = "the same" if ours == theirs else both.verdict.replace("tie", "undecided")
        found.append((WHERE, text, both, word, "-", "-", "-"))
    return found


def picked(names: Sequence[str], paired: Paired, seen: NDArray[Any], sizes: Sizes) -> list[int]:
    """Return the places of the finals that `kagflow shakeup` advises."""
    candidates = [
        Candidate(name, ref=at, public=round(float(seen[at]), 5)) for at, name in enumerate(names)
    ]
    advice = advise(candidates, paired, Asked(sizes, finals=FINALS))
    assert advice.pair is not None
    return list(advice.pair.places)


def better(places: Sequence[int], private: NDArray[Any]) -> int:
    """Return the place whose private mean is higher."""
    return max(places, key=lambda at: float(private[at].mean()))


def _said(names: Sequence[str], places: Sequence[int]) -> str:
    return " and ".join(names[at] for at in places)

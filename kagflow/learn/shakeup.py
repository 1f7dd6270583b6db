"""What the private leaderboard may hold, and which finals to bet on: the advice and its grounds.

Candidates are submissions and ensembles by name; what Kaggle holds of them (reference and public
score) comes from the caller. Private scores are no input anywhere here.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from kagflow.errors import UsageError
from kagflow.learn.adversarial import TRUSTED_AUC
from kagflow.learn.shakeup_pair import MEDAL_COST, Pair, medal_worth, pick
from kagflow.learn.shakeup_posterior import (
    DRIFTS,
    ENOUGH_PUBLIC,
    NO_DRIFT,
    Beliefs,
    Sizes,
    beats,
    believe,
)
from kagflow.learn.shakeup_sampling import DRAWS, Float, Paired

SCHEMA = 1
# One side of the normal distribution: 95 of 100 differences of pure sampling are smaller.
ONE_SIDED = 1.645


@dataclass(frozen=True)
class Candidate:
    """Name a submission, or an ensemble that was not submitted: then `ref` is None."""

    name: str
    ref: int | None = None
    public: float | None = None


@dataclass(frozen=True)
class Asked:
    """Say what the advice is for.

    `auc` is that of adversarial validation, None where it could not be asked; `medal_cut` the
    public score that wins the medal that is played for, None to play for the score.
    """

    sizes: Sizes
    finals: int = 2
    auc: float | None = None
    medal_cut: float | None = None
    draws: int = DRAWS
    seed: int = 0


@dataclass(frozen=True)
class Outlook:
    """Hold what is expected of one candidate; `low` to `high` hold 90 of 100 private scores."""

    name: str
    ref: int | None
    oof: float
    public: float | None
    expected: float
    low: float
    high: float
    best: float


@dataclass(frozen=True)
class Noise:
    """Compare the two highest public scores with what sampling alone makes of such files.

    `floor` is the public difference below which the order means nothing (one-sided 95 %);
    `flip` the chance that the private order is the other way round.
    """

    first: str
    second: str
    difference: float
    floor: float
    flip: float


@dataclass(frozen=True)
class Advice:
    """Hold everything that `kagflow shakeup` says.

    `pair` are the finals to tick among what was submitted, None where nothing was; `wished` those
    that would be better if its files without `ref` were submitted, None where there are none.
    `beats[a][b]` is P(a scores higher than b on private). `known` is false where drift can neither
    be seen nor excluded: then no probability is worth printing, and the answer is "cannot tell".
    """

    outlooks: tuple[Outlook, ...]
    beats: tuple[tuple[float, ...], ...]
    known: bool
    noise: Noise | None
    flip_leader: float | None
    pair: Pair | None
    wished: Pair | None
    seen: int
    design: float
    drift: float
    images: int
    clusters: int
    asked: Asked

    def refs(self) -> tuple[int, ...]:
        """Return the references to tick."""
        places = self.pair.places if self.pair else ()
        return tuple(ref for at in places if (ref := self.outlooks[at].ref) is not None)

    def names(self, pair: Pair) -> tuple[str, ...]:
        """Return the names of a pair's candidates."""
        return tuple(self.outlooks[at].name for at in pair.places)

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON values."""
        return {
            "candidates": [asdict(one) for one in self.outlooks],
            "beats": [list(row) for row in self.beats] if self.known else None,
            "cannot_tell": not self.known,
            "noise": asdict(self.noise) if self.noise else None,
            "leader_flips": self.flip_leader,
            "pair": self._pair(self.pair),
            "wished": self._pair(self.wished),
            "seen_public": self.seen,
            "design_effect": self.design,
            "drift": self.drift,
            "images": self.images,
            "clusters": self.clusters,
            "auc": self.asked.auc,
            "public_images": self.asked.sizes.public,
            "private_images": self.asked.sizes.private,
        }

    def _pair(self, pair: Pair | None) -> dict[str, Any] | None:
        if pair is None:
            return None
        alike = None if pair.alike is None else [self.outlooks[at].name for at in pair.alike]
        refs = [self.outlooks[at].ref for at in pair.places]
        told = {"names": list(self.names(pair)), "refs": refs, "passed_over": alike}
        return {**told, "value": pair.value, "best": pair.best, "correlation": pair.correlation}


def advise(candidates: Sequence[Candidate], paired: Paired, asked: Asked) -> Advice:
    """Return the advice for candidates (J) and their scores on the same images.

    Raises UsageError where there is no candidate, or a medal is played for and no candidate has a
    public score.
    """
    if not candidates:
        raise UsageError("there is no ensemble to judge", hint="kagflow ensemble")
    public = [one.public for one in candidates]
    seen = sum(score is not None for score in public)
    trusted = asked.auc is not None and asked.auc <= TRUSTED_AUC
    beliefs = believe(
        paired,
        public,
        asked.sizes,
        # Nothing seen, and the images alike: what drift there may be is not made up.
        drifts=NO_DRIFT if trusted and seen < ENOUGH_PUBLIC else DRIFTS,
        draws=asked.draws,
        seed=asked.seed,
    )
    chances = beats(beliefs)
    pair, wished = _finals(candidates, beliefs, asked)
    return Advice(
        outlooks=_outlooks(candidates, beliefs),
        beats=tuple(tuple(map(float, row)) for row in chances),
        known=trusted or seen >= ENOUGH_PUBLIC,
        noise=_noise(candidates, beliefs, chances),
        flip_leader=_leader_flips(public, beliefs),
        pair=pair,
        wished=wished,
        seen=seen,
        design=beliefs.design,
        drift=beliefs.drift,
        images=paired.images,
        clusters=len(np.unique(paired.clusters)),
        asked=asked,
    )


def _finals(
    candidates: Sequence[Candidate], beliefs: Beliefs, asked: Asked
) -> tuple[Pair | None, Pair | None]:
    worth, cost = None, None
    if asked.medal_cut is not None:
        worth = medal_worth(beliefs, [one.public for one in candidates], asked.medal_cut)
        cost = MEDAL_COST

    def best(allowed: list[int]) -> Pair:
        return pick(beliefs, allowed, finals=asked.finals, worth=worth, cost=cost)

    sent = [at for at, one in enumerate(candidates) if one.ref is not None]
    pair = best(sent) if sent else None
    wished = best(list(range(len(candidates))))
    new = any(candidates[at].ref is None for at in wished.places)
    return pair, wished if new else None


def _outlooks(candidates: Sequence[Candidate], beliefs: Beliefs) -> tuple[Outlook, ...]:
    private = beliefs.private
    low, high = np.quantile(private, (0.05, 0.95), axis=0)
    top = np.bincount(private.argmax(axis=1), minlength=len(candidates)) / len(private)
    return tuple(
        Outlook(
            name=one.name,
            ref=one.ref,
            oof=float(beliefs.means[at]),
            public=one.public,
            expected=float(private[:, at].mean()),
            low=float(low[at]),
            high=float(high[at]),
            best=float(top[at]),
        )
        for at, one in enumerate(candidates)
    )


def _noise(candidates: Sequence[Candidate], beliefs: Beliefs, chances: Float) -> Noise | None:
    scored = [(one.public, at) for at, one in enumerate(candidates) if one.public is not None]
    if len(scored) < 2:
        return None
    (high, first), (low, second) = sorted(scored, key=lambda pair: (-pair[0], pair[1]))[:2]
    return Noise(
        first=candidates[first].name,
        second=candidates[second].name,
        difference=high - low,
        floor=float(ONE_SIDED * beliefs.public_noise[first, second]),
        flip=float(chances[second, first]),
    )


def _leader_flips(public: Sequence[float | None], beliefs: Beliefs) -> float | None:
    """Return the chance that the public leader is not the private one among what was scored."""
    known = {at: score for at, score in enumerate(public) if score is not None}
    if len(known) < 2:
        return None
    leader = list(known).index(max(known, key=lambda at: known[at]))
    return float((beliefs.private[:, list(known)].argmax(axis=1) != leader).mean())

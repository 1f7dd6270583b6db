"""What private scores to expect, from out-of-fold scores and the public ones: drift included.

A test mean differs from the out-of-fold one by a shift that all candidates share, by sampling, and
by drift that public and private share: the test's images are not those of training. How much of
what is seen in public scores is sampling and how much drift cannot be told from them alone, so
every mixture of both that a grid names is kept, weighted by how well it explains them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import product

import numpy as np
from numpy.typing import NDArray

from kagflow.learn.shakeup_sampling import DRAWS, Float, Paired, covariance, draw_means, group_size

# How many times more than by near-duplicates a mean varies because images come from rolls,
# patients or days that nobody named; Kish's design effect 1 + (m - 1) rho.
DESIGNS = (1.0, 2.0, 4.0, 8.0, 16.0)
# Clusters of so many images are taken for whole rolls: nothing is added to them.
WHOLE_GROUP = 20.0
# Drift moves candidates apart like the mean of so many images that are alike; inf is none.
DRIFTS = (np.inf, 8000.0, 2000.0, 500.0, 125.0, 30.0, 8.0)
NO_DRIFT = (np.inf,)
# Of drift, this share moves each candidate on its own, the rest where they differ out of fold.
OWN_SHARE = 0.1
# All candidates together may be off by about so much: an easier or harder test.
COMMON = 0.05
# Public scores come rounded, and fold averages predict a little otherwise than each fold did.
ROUNDING = 1e-5
# With fewer public scores drift is guessed, not seen.
ENOUGH_PUBLIC = 3


@dataclass(frozen=True)
class Sizes:
    """Count the images of the public and of the private test set."""

    public: int
    private: int


@dataclass(frozen=True)
class Beliefs:
    """Hold joint draws of what is not known yet.

    `private` (draws, J) are scores given the public ones; `design` is the expected design effect
    beyond near-duplicates, `drift` the chance that there is drift, one half before a score is seen.
    `public_noise` (J, J) is the standard deviation of public differences by sampling alone.
    """

    private: Float
    means: Float
    correlation: Float
    design: float
    drift: float
    public_noise: Float
    seen: int = field(default=0)


@dataclass(frozen=True)
class _Part:
    """One pair of assumptions, with its covariances and how well it fits (log)."""

    design: float
    shared: Float  # (J, J) of what public and private have in common
    gain: Float  # (J, K) from public residuals to private scores
    drift: float
    fit: float


def believe(
    paired: Paired,
    public: Sequence[float | None],
    sizes: Sizes,
    *,
    drifts: Sequence[float] = DRIFTS,
    draws: int = DRAWS,
    seed: int = 0,
) -> Beliefs:
    """Return beliefs on private scores; `public` holds each candidate's score or None.

    Draws follow Matheron's rule: a joint draw of public and private scores by cluster bootstrap is
    moved by the linear map that would take its public part to the scores that were seen. Private
    scores are no input.
    """
    rng = np.random.default_rng(seed)
    given = np.array([np.nan if one is None else one for one in public], np.float64)
    known = np.flatnonzero(np.isfinite(given))
    spread = covariance(paired)
    grid = product(_designs(paired), drifts)
    parts = [_part(paired, spread, given, known, sizes, one) for one in grid]
    fits = np.array([part.fit for part in parts])
    weights = np.exp(fits - fits.max())
    weights /= weights.sum()
    away = [
        draw_means(paired, n, draws=draws, rng=rng) - paired.means
        for n in (sizes.public, sizes.private)
    ]
    which = rng.choice(len(parts), draws, p=weights)
    private = np.empty((draws, len(given)))
    for number in np.unique(which):
        rows = np.flatnonzero(which == number)
        part = parts[number]
        scale = np.sqrt(part.design)
        base = paired.means + _normal(part.shared, len(rows), rng)
        seen = (base + scale * away[0][rows])[:, known]
        # Rounding is part of what is seen, or equal candidates would contradict each other.
        seen += rng.normal(0, ROUNDING, seen.shape)
        private[rows] = base + scale * away[1][rows] + (given[known] - seen) @ part.gain.T
    design = float(weights @ [part.design for part in parts])
    return Beliefs(
        private=private,
        means=paired.means,
        correlation=_correlation(spread),
        design=design,
        drift=_drift_chance(parts, weights),
        public_noise=_difference_sd(spread * design / sizes.public),
        seen=len(known),
    )


def beats(beliefs: Beliefs) -> Float:
    """Return P(row beats column on private): (J, J), ties shared, the diagonal 0.5."""
    private = beliefs.private
    over = private[:, :, None] - private[:, None, :]
    return np.asarray((np.sign(over).mean(axis=0) + 1) / 2)


def _drift_chance(parts: Sequence[_Part], weights: Float) -> float:
    """Return how well drift explains what is seen, against none, as a chance at even odds."""
    drifting = np.array([part.drift < np.inf for part in parts])
    if drifting.all() or not drifting.any():
        return float(drifting.any())
    with_drift, without = weights[drifting].mean(), weights[~drifting].mean()
    return float(with_drift / (with_drift + without))


def _designs(paired: Paired) -> tuple[float, ...]:
    return (1.0,) if group_size(paired.clusters) >= WHOLE_GROUP else DESIGNS


def _part(
    paired: Paired,
    spread: Float,
    given: Float,
    known: NDArray[np.intp],
    sizes: Sizes,
    assumed: tuple[float, float],
) -> _Part:
    design, drift = assumed
    count = len(spread)
    own = _contrast(spread) * np.eye(count)
    moved = ((1 - OWN_SHARE) * spread + OWN_SHARE * own) / drift
    shared = design * spread / paired.images + moved + COMMON**2
    if not len(known):
        return _Part(design, shared, np.zeros((count, 0)), drift, 0.0)
    noise = design * spread / sizes.public + ROUNDING**2 * np.eye(count)
    seen = (shared + noise)[np.ix_(known, known)]
    residual = given[known] - paired.means[known]
    gain = np.linalg.solve(seen, shared[known]).T
    fit = residual @ np.linalg.solve(seen, residual) + np.linalg.slogdet(seen)[1]
    return _Part(design, shared, gain, drift, -0.5 * float(fit))


def _contrast(spread: Float) -> float:
    """Return the mean variance of candidates around their common mean."""
    count = len(spread)
    return float(np.trace(spread) - spread.sum() / count) / max(count - 1, 1)


def _normal(covariance: Float, count: int, rng: np.random.Generator) -> Float:
    # By eigenvalues: equal candidates make the matrix singular, which Cholesky refuses.
    values, vectors = np.linalg.eigh(covariance)
    plain = rng.standard_normal((count, len(values)))
    return np.asarray(plain * np.sqrt(np.maximum(values, 0)) @ vectors.T)


def _difference_sd(spread: Float) -> Float:
    own = np.diag(spread)
    return np.asarray(np.sqrt(np.maximum(own[:, None] + own - 2 * spread, 0)))


def _correlation(spread: Float) -> Float:
    scale = np.sqrt(np.diag(spread))
    safe = np.where(scale > 0, scale, 1)
    found = spread / safe[:, None] / safe
    np.fill_diagonal(found, 1)
    return np.asarray(found)

"""Competitions made up from known truth: twelve submissions, rolls, drift, and what private was.

Shaped like steel: 12,568 training, 1,801 public and 3,705 private images in 60, 9 and 18 rolls; 4
classes, 14 % of the (image, class) cells with a defect. A submission errs by false positives, by
misses, and by masks that fit badly. Submissions come in families that err alike; an image that is
hard is so for all; 6 % of the images nearly repeat the one before.

Rolls have a look (3 numbers) and a defect rate of their own, to which families are sensitive.
Drift moves the looks and rates of all test rolls; where public and private drift apart, each has a
direction of its own.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

COUNTS = (12568, 1801, 3705)
ROLLS = (60, 9, 18)
RATES = np.array([0.071, 0.020, 0.410, 0.064])
CANDIDATES, FAMILIES, LOOKS = 12, 4, 3
REPEATS = 0.06


class Kind(NamedTuple):
    """Scale what rolls differ by, and how far the test's rolls are away."""

    rolls: float
    drift: float
    apart: bool = False


KINDS = {
    "iid": Kind(0.0, 0.0),
    "rolls": Kind(1.0, 0.0),
    "drift": Kind(1.0, 1.0),
    "strong": Kind(1.0, 2.5),
    "apart": Kind(1.0, 1.0, apart=True),
}


@dataclass(frozen=True)
class World:
    """Hold per-image out-of-fold scores (J, N), the groups that are known, and both boards."""

    scores: np.ndarray
    clusters: np.ndarray
    public: np.ndarray
    private: np.ndarray


@dataclass(frozen=True)
class _Plant:
    """Where each image comes from, and what its roll is like."""

    part: np.ndarray
    cluster: np.ndarray
    roll: np.ndarray
    looks: np.ndarray
    rates: np.ndarray


def make_world(seed: int, kind: Kind, *, rolls_known: bool = False) -> World:
    """Draw a world; where rolls are not known, only near-duplicates are grouped."""
    rng = np.random.default_rng(seed)
    plant = _plant(rng, kind)
    scores = _scores(rng, plant)
    train = plant.part == 0
    known = plant.roll if rolls_known else plant.cluster
    public, private = (scores[:, plant.part == part].mean(axis=1) for part in (1, 2))
    return World(
        scores=scores[:, train],
        clusters=known[train],
        public=np.round(public.astype(float), 5),
        private=private.astype(float),
    )


def _plant(rng, kind: Kind) -> _Plant:
    first = np.cumsum((0, *ROLLS))
    rolls = [
        np.sort(first[at] + rng.choice(ROLLS[at], COUNTS[at], p=rng.dirichlet([4.0] * ROLLS[at])))
        for at in range(3)
    ]
    roll = np.concatenate(rolls)
    repeats = (rng.random(len(roll)) < REPEATS) & (np.diff(roll, prepend=-1) == 0)
    looks = kind.rolls * rng.standard_normal((sum(ROLLS), LOOKS))
    rates = kind.rolls * 0.5 * rng.standard_normal((sum(ROLLS), len(RATES)))
    for part in (1, 2):
        if part == 1 or kind.apart:
            away = rng.standard_normal(LOOKS)
            rarer = 0.5 * rng.standard_normal(len(RATES))
        here = slice(first[part], first[part + 1])
        looks[here] += kind.drift * away / np.linalg.norm(away)
        rates[here] += kind.drift * rarer
    return _Plant(np.repeat(np.arange(3), COUNTS), np.cumsum(~repeats) - 1, roll, looks, rates)


def _scores(rng, plant: _Plant) -> np.ndarray:
    def of_family(within: float, between: float, *shape: int) -> np.ndarray:
        shared = rng.normal(0, between, (FAMILIES, *shape))[family]
        return (shared + rng.normal(0, within, (CANDIDATES, *shape))).astype(np.float32)

    def grouped(alike: float = 0.9) -> np.ndarray:
        shared = rng.standard_normal(plant.cluster[-1] + 1, np.float32)[plant.cluster]
        own = rng.standard_normal(len(plant.cluster), np.float32)
        return np.float32(alike**0.5) * shared + np.float32((1 - alike) ** 0.5) * own

    def errors() -> np.ndarray:
        families = rng.standard_normal((FAMILIES, len(plant.cluster)), np.float32)[family]
        each = rng.standard_normal((CANDIDATES, len(plant.cluster)), np.float32)
        return np.float32(0.7**0.5) * grouped() + (0.3 - own) ** 0.5 * families + own**0.5 * each

    family = np.append(np.arange(FAMILIES), rng.integers(0, FAMILIES, CANDIDATES - FAMILIES))
    own = rng.choice([0.01, 0.05, 0.15], (CANDIDATES, 1)).astype(np.float32)
    skill, strict = of_family(0.025, 0.02, 1), of_family(0.04, 0.05, 1)
    looks = plant.looks.astype(np.float32)
    fits = (of_family(0.03, 0.06, LOOKS) @ looks.T)[:, plant.roll]
    fooled = (of_family(0.04, 0.08, LOOKS) @ looks.T)[:, plant.roll]
    hard, total = grouped(), np.zeros((CANDIDATES, len(plant.cluster)), np.float32)
    for at, rate in enumerate(RATES):
        odds = np.log(rate / (1 - rate)) + plant.rates[plant.roll, at]
        there = rng.random(plant.cluster[-1] + 1)[plant.cluster] < _sigmoid(odds)
        error = errors()
        clean = error <= 2.05 + strict + 0.5 * skill - 0.4 * hard - fooled
        found = error >= -1.25 + strict - 0.5 * skill + 0.4 * hard - fits
        dice = _sigmoid(1.5 + 0.6 * error - 0.5 * hard + skill + fits)
        total += np.where(there, found * dice, clean)
    return total / len(RATES)


def _sigmoid(x):
    return 1 / (1 + np.exp(-x))

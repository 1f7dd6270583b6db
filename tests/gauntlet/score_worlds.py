"""Synthetic worlds whose truth is known: what out-of-fold maps of a world's models would count to.

A world fixes how its classes look and how well its models see them; `draw` makes images of it, so
that a rule tuned on one draw can be scored on a fresh one of any size.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from kagflow.learn.calibrate import sigmoid
from kagflow.learn.counts import COMPONENT_THRESHOLDS, THRESHOLDS, area_grid
from kagflow.learn.evidence import Components, Evidence
from kagflow.learn.oof import quantise
from kagflow.learn.pool import Pool
from kagflow.learn.sketch import Sample, Sketch
from kagflow.task.spec import TaskSpec

PIXELS = 256 * 1024
# How common Severstal's four classes are among its images.
PREVALENCE = (0.07, 0.02, 0.41, 0.06)


@dataclass(frozen=True)
class ClassWorld:
    """How one class looks: `overlap` of what is found with the truth, how sharp and how gated."""

    prevalence: float
    size: float
    overlap: float
    missed: float
    invented: float
    falling: float
    gate: float
    heat: float


def make_world(seed: int, prevalence=PREVALENCE) -> tuple[ClassWorld, ...]:
    rng = np.random.default_rng(seed)
    return tuple(
        ClassWorld(
            prevalence=share,
            size=float(np.exp(rng.uniform(6.5, 9))),
            overlap=float(rng.uniform(0.55, 0.9)),
            missed=float(rng.uniform(0.05, 0.35)),
            invented=float(rng.uniform(0.01, 0.06)),
            falling=float(rng.uniform(0.5, 2)),
            gate=float(rng.uniform(2, 5)),
            heat=float(rng.uniform(0.5, 2)),
        )
        for share in prevalence
    )


def draw(world, rng, images, *, gate=True) -> Evidence:
    """Draw images of a world; every second one has a near-duplicate beside it."""
    columns = [_draw_class(one, rng, images) for one in world]
    return Evidence(
        image_ids=tuple(f"{number:06}" for number in range(images)),
        clusters=np.arange(images),
        true=np.stack([one[0] for one in columns], axis=1),
        predicted=np.stack([one[1] for one in columns], axis=1),
        intersection=np.stack([one[2] for one in columns], axis=1),
        gate=np.stack([one[3] for one in columns], axis=1) if gate else None,
        pixels=PIXELS,
        components=tuple(one[4] for one in columns),
    )


def _draw_class(one, rng, n):
    shown = rng.random(n) < one.prevalence
    true = np.where(shown, one.size * np.exp(rng.normal(0, 0.8, n)), 0).astype(np.int64)
    # The piece that is found (or invented), its peak, and how its area falls with the threshold.
    found = np.where(shown, rng.random(n) > one.missed, rng.random(n) < one.invented)
    peak = np.where(shown, rng.beta(8, 1.5, n), rng.beta(3, 2, n))
    full = np.where(
        shown, true * np.exp(rng.normal(0.3, 0.3, n)), one.size * rng.gamma(0.5, 0.6, n)
    )
    at = THRESHOLDS[None]
    curve = np.clip(1 - at / np.maximum(peak[:, None], 1e-6), 0, 1) ** (0.25 * one.falling)
    piece = (found[:, None] * full[:, None] * curve).astype(np.int64)
    quality = np.clip(rng.normal(one.overlap, 0.15, n), 0.05, 1)
    both = np.minimum(piece, true[:, None]) * quality[:, None]
    both = (both * np.minimum(1, 1 - 0.3 * (at - 0.5))).astype(np.int64) * shown[:, None]
    both = np.minimum(both, np.minimum(piece, true[:, None]))
    # Specks: small false pieces anywhere.
    specks = rng.random(n) < 0.05
    speck = (specks * one.size * 0.05 * rng.gamma(1, 1, n))[:, None]
    speck = (speck * np.clip(1 - at / rng.beta(4, 3, n)[:, None], 0, 1) ** 0.5).astype(np.int64)
    predicted = piece + speck
    logits = np.where(shown, one.gate / 2, -one.gate / 2) + rng.normal(0, 1.2, n)
    prior = np.log(one.prevalence / (1 - one.prevalence))
    seen = 1 / (1 + np.exp(-(logits * one.gate / 1.44 + prior) * one.heat))
    rows = np.flatnonzero(predicted.any(axis=1))
    return true, predicted, both, seen.astype(np.float32), _pieces(piece, speck, both, rows)


def _pieces(piece, speck, both, rows):
    areas = area_grid(PIXELS)
    every = np.flatnonzero(np.isin(THRESHOLDS, COMPONENT_THRESHOLDS))
    big, small = piece[np.ix_(rows, every)][..., None], speck[np.ix_(rows, every)][..., None]
    inside = both[np.ix_(rows, every)][..., None] * (big >= areas)
    left = big * (big >= areas) + small * (small >= areas)
    return Components(COMPONENT_THRESHOLDS, left.astype(np.int32), inside.astype(np.int32))


@dataclass(frozen=True)
class Member:
    """How one model sees: `skill` separates, `own` is what no other model sees, `bold` shifts."""

    skill: float
    own: float
    bold: float
    invents: float


# Pixels of an image that could be predicted at all, and how many each stands for.
_SEEN, _STANDS_FOR = 40, 60.0


def make_members(seed: int, count: int) -> tuple[Member, ...]:
    rng = np.random.default_rng([seed, 99])
    return tuple(
        Member(
            skill=float(rng.uniform(0.8, 2)),
            own=float(rng.uniform(0.8, 2)),
            bold=float(rng.normal(0, 0.5)),
            invents=float(rng.uniform(0.02, 0.07)),
        )
        for _ in range(count)
    )


def make_heats(seed: int, count: int) -> tuple[float, ...]:
    """Return how far each gate of a world over- or understates its odds."""
    rng = np.random.default_rng([seed, 98])
    return tuple(float(rng.uniform(0.7, 1.6)) for _ in range(count))


def draw_members(members, prevalence, rng, images, *, heats=()) -> Sketch:
    """Draw maps of several models of the same images: half of the pixels are the defect.

    Each of `heats` is a gate; it is the same gate in every draw of a world.
    """
    shown = np.stack([rng.random(images) < share for share in prevalence], axis=1)
    samples = tuple(_sample(members, column, rng) for column in shown.T)
    return Sketch(
        _pool_of(shown, len(members), [_gate(shown, rng, heat) for heat in heats]), samples
    )


def _pool_of(shown, members, labels) -> Pool:
    images, classes = shown.shape
    return Pool(
        spec=TaskSpec("world", "segmentation", tuple(map(str, range(classes)))),
        names=tuple(f"{number:06}" for number in range(images)),
        clusters=np.arange(images),
        true=shown * int(_SEEN / 2 * _STANDS_FOR),
        truth={},
        masks=tuple(_Everywhere() for _ in range(members)),
        labels=np.array(labels, np.float32).reshape(-1, images, classes),
    )


class _Everywhere(dict):
    """A store that says one size of any image."""

    def __missing__(self, name):
        return self

    def size(self, name):
        return 256, 1024


def _gate(present, rng, heat):
    logits = np.where(present, 1.5, -3) + rng.normal(0, 1.5, present.shape)
    return sigmoid(logits * heat)


def _sample(members, shown, rng):
    n = len(shown)
    easy, common = rng.normal(0, 1, (n, 1)), rng.normal(0, 1, (n, _SEEN))
    everyone = rng.random((n, 1)) < 0.02
    half = np.arange(_SEEN) >= _SEEN // 2
    values = []
    for one in members:
        inside = one.skill * np.where(half, 1, -1) + one.bold
        inside = inside + easy + common + one.own * rng.normal(0, 1, (n, _SEEN))
        inside = inside + one.own * rng.normal(0, 1, (n, 1))
        invented = everyone | (rng.random((n, 1)) < one.invents)
        outside = np.where(invented, 1 + rng.normal(0, 1, (n, 1)), -4) + common
        values.append(
            quantise(sigmoid(np.where(shown[:, None], inside, outside)).astype(np.float32))
        )
    return _as_sample(np.stack(values), shown)


def _as_sample(values, shown) -> Sample:
    """Keep the images (M, N, pixels) of which anything could be predicted."""
    rows = np.flatnonzero((values >= 24).any(axis=(0, 2)))
    true = np.where(shown[rows], _SEEN // 2, 0)
    lengths = np.stack([_SEEN - true, true], axis=1)
    return Sample(
        rows=rows,
        values=values[:, rows].reshape(len(values), -1),
        ends=lengths.ravel().cumsum(),
        scale=np.full(len(rows), _STANDS_FOR),
    )


def five_members(rng, images, *, keep=(0, 1, 2, 3, 4), labels=()):
    """Three alike and apart, a copy of the first, a blind one; `labels` are gates by skill."""
    shown = rng.random((images, 2)) < (0.4, 0.15)
    samples = []
    for index in range(2):
        maps = [_one_of_five(shown[:, index], rng) for _ in range(3)]
        blind = quantise(rng.random(maps[0].shape).astype(np.float32))
        samples.append(_as_sample(np.stack([*maps, maps[0], blind])[list(keep)], shown[:, index]))
    gates = [
        sigmoid(skill * np.where(shown, 2, -2) + rng.normal(0, 2.5, shown.shape))
        for skill in labels
    ]
    return Sketch(_pool_of(shown, len(keep), gates), tuple(samples))


def _one_of_five(shown, rng):
    n = len(shown)
    half = np.arange(_SEEN) >= _SEEN // 2
    inside = 2 * np.where(half, 1, -1) + rng.normal(0, 1, (n, _SEEN)) + rng.normal(0, 1.2, (n, 1))
    outside = np.where(rng.random((n, 1)) < 0.12, 1.5, -4) + rng.normal(0, 0.5, (n, _SEEN))
    return quantise(sigmoid(np.where(shown[:, None], inside, outside)).astype(np.float32))

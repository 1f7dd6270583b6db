"""What an ensemble, or a lone run, says of an image out of fold."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from math import lcm
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kagflow.errors import DataError
from kagflow.infer.members import MEANS
from kagflow.infer.postprocess import ClassRule, apply, apply_labels
from kagflow.learn.blend import Blend
from kagflow.learn.evaluate import finished_folds, read_run
from kagflow.learn.evidence import Evidence, Store, Truth, count_blends, from_labels, open_member
from kagflow.learn.pool import open_pool
from kagflow.progress import QUIET, Progress
from kagflow.task.spec import TaskSpec

Float = NDArray[np.float32]
PROBABILITIES = MEANS[0]
# Weights are shares of a few whole parts; floats of them are read back as such.
FINEST = 1000


@dataclass(frozen=True)
class Voice:
    """One run among those that judge: its out-of-fold stores, its weight, and what is averaged."""

    run: str
    store: Store
    weight: float
    predicts: str
    mean: str = PROBABILITIES


@dataclass(frozen=True)
class Seen:
    """Hold an image's predicted classes (C,) bool, its masks (C, H, W) bool and their
    probabilities, both None for labels.
    """

    found: NDArray[np.bool_]
    masks: NDArray[np.bool_] | None = None
    probs: Float | None = None


@dataclass(frozen=True)
class Judge:
    """Average voices and apply rules, as the kernel does."""

    name: str
    spec: TaskSpec
    rules: tuple[ClassRule, ...]
    voices: tuple[Voice, ...]

    @property
    def image_ids(self) -> set[str]:
        """Return the images that every voice predicts out of fold."""
        stores = [set(voice.store) for voice in self.voices]
        return set.intersection(*stores) if stores else set()

    def look(self, image_id: str) -> Seen:
        """Return what is predicted of an image."""
        labels = self.labels(image_id)
        if self.spec.kind == "classification":
            assert labels is not None
            classes = apply_labels(labels, self.rules, exclusive=self.spec.exclusive)
            found = np.zeros(len(self.spec.classes), bool)
            found[classes] = True
            return Seen(found)
        probs = self.probs(image_id)
        masks = apply(probs, labels, self.rules)
        return Seen(masks.any(axis=(1, 2)), masks, probs)

    def each_mask(self, image_id: str) -> list[Float]:
        """Return what every segmenter alone says of an image, (C, H, W) each."""
        return [voice.store[image_id].mask(image_id) for voice in self.segmenters]

    @property
    def segmenters(self) -> list[Voice]:
        """Return the voices that predict masks."""
        return [voice for voice in self.voices if voice.predicts == "mask"]

    @property
    def gates(self) -> list[Voice]:
        """Return the voices that predict labels."""
        return [voice for voice in self.voices if voice.predicts == "label"]

    def probs(self, image_id: str) -> Float:
        """Return the mean mask probabilities of an image, (C, H, W)."""
        maps = [voice.store[image_id].mask(image_id) for voice in self.segmenters]
        return blend_of(self.segmenters).mean(maps)

    def labels(self, image_id: str) -> Float | None:
        """Return the mean label probabilities of an image, (C,); None without a gate."""
        if not self.gates:
            return None
        labels = [voice.store[image_id].label(image_id) for voice in self.gates]
        return blend_of(self.gates).mean(labels)


def blend_of(voices: Sequence[Voice]) -> Blend:
    """Return how voices of one kind are averaged: by weight, probabilities or logits."""
    shares = [Fraction(voice.weight).limit_denominator(FINEST) for voice in voices]
    common = lcm(*(share.denominator for share in shares))
    logits = any(voice.mean != PROBABILITIES for voice in voices)
    return Blend(tuple(int(share * common) for share in shares), logits)


def of_ensemble(value: Mapping[str, Any], runs: Path, spec: TaskSpec) -> Judge:
    """Return the judge that an ensemble's JSON describes; raises DataError on a missing store."""
    weights: dict[str, float] = {}
    means: dict[str, str] = {}
    for member in value["members"]:
        weights[member["run"]] = weights.get(member["run"], 0.0) + float(member["weight"])
        means[member["run"]] = str(member.get("mean") or PROBABILITIES)
    voices = tuple(
        _voice(runs / run, weight, means[run]) for run, weight in weights.items() if weight
    )
    rules = tuple(ClassRule.from_dict(rule) for rule in value["rules"])
    return Judge(str(value["name"]), spec, rules, voices)


def of_run(run: Path, spec: TaskSpec) -> Judge:
    """Return a run alone at default rules; raises DataError on a missing store."""
    rules = (ClassRule(),) * len(spec.classes)
    return Judge(run.name, spec, rules, (_voice(run, 1.0, PROBABILITIES),))


def _voice(run: Path, weight: float, mean: str) -> Voice:
    folds: Sequence[Path] = finished_folds(run)
    if not folds:
        raise DataError(
            f"{run} has no finished fold, though the ensemble counts on it",
            hint="kagflow ensemble makes it anew from the runs that are there",
        )
    predicts = str(read_run(folds[0])["predicts"])
    return Voice(run.name, open_member(folds), weight, predicts, mean)


def evidence(
    judge: Judge, truth: Truth, clusters: Mapping[str, int], progress: Progress = QUIET
) -> Evidence:
    """Count what a judge's mean maps hold, on the images of `clusters` that all voices predict."""
    pool = open_pool([voice.store for voice in judge.voices], truth, judge.spec, clusters)
    if judge.spec.kind == "classification":
        return from_labels(pool, blend_of(judge.gates))
    (counted,) = count_blends(pool, [blend_of(judge.segmenters)], progress)
    if not judge.gates:
        return counted
    return replace(counted, gate=blend_of(judge.gates).mean(list(pool.labels)))

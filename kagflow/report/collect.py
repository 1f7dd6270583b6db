"""Gather what the page shows from runs, ensembles, labels and the history; whatever is there."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np

from kagflow.errors import DataError
from kagflow.learn import evaluate
from kagflow.learn.assess import assess
from kagflow.learn.perimage import PerImage, shared
from kagflow.progress import QUIET, Progress
from kagflow.report import errors, judge, spent
from kagflow.report.curves import Curve, curves
from kagflow.report.doubts import Doubt, Twins, find_doubts, find_twins
from kagflow.report.facts import Facts, Limits, Member, Members, Missing, Place
from kagflow.report.gallery import Card, Source, make_cards
from kagflow.report.judge import Judge
from kagflow.report.reliability import Gate, by_class, raw_gate
from kagflow.task import metric
from kagflow.task.folds import Folds, read_folds
from kagflow.task.labels import Labels, read_labels
from kagflow.task.metric import Metric

# Members whose every image is scored for intervals and correlations.
MEMBERS = 12
# Where there are more images, curves and members are of this many, in whole clusters.
SAMPLE = 3_000
TEXT_EACH = 10_000  # bytes of a card beside its picture, contours included
LARGEST = 64_000
OVERHEAD = 1_500_000


@dataclass
class Collector:
    """Read each thing once; every method makes one section."""

    place: Place
    limits: Limits = field(default_factory=Limits)
    progress: Progress = QUIET

    def collect(self) -> Facts:
        """Make all sections; raises DataError where a store or the labels are damaged."""
        judged, result = self.judged, self.result
        doubts = self._doubts()
        twins = () if isinstance(result, Missing) else find_twins(result)
        return Facts(
            labels=self.place.spec.classes,
            there=() if isinstance(result, Missing) else _there(result),
            sample=(len(self.sample), len(self.folds)),
            worth=result if isinstance(result, Missing) else assess(result, self.metric),
            costs=result if isinstance(result, Missing) else errors.costs(result),
            runs=evaluate.list_runs(self.place.runs),
            submitted=self._submitted(),
            members=self._members(),
            curves=judged if isinstance(judged, Missing) else self._curves(judged),
            gates=self._gates(),
            hours=self._hours(),
            cards=self._cards(doubts, twins),
            doubts=doubts,
            twins=twins,
        )

    @cached_property
    def metric(self) -> Metric:
        """Return the competition's metric."""
        return metric.load(self.place.spec)

    @cached_property
    def folds(self) -> Folds:
        """Return every image's cluster and fold."""
        return read_folds(self.place.data / "folds.csv")

    @cached_property
    def sample(self) -> Folds:
        """Return the images that curves and members are of: all, or a seeded sample of clusters."""
        if len(self.folds) <= SAMPLE:
            return self.folds
        clusters = np.unique([cluster for cluster, _ in self.folds.values()])
        order = np.random.default_rng(0).permutation(clusters)
        rank = {int(cluster): at for at, cluster in enumerate(order)}
        names = sorted(self.folds, key=lambda name: (rank[self.folds[name][0]], name))
        return {name: self.folds[name] for name in names[:SAMPLE]}

    @cached_property
    def truth(self) -> Labels:
        """Return what is true of the training images."""
        spec = self.place.spec
        return read_labels(self.place.data / spec.train_csv, spec, only=self.folds)

    @cached_property
    def judged(self) -> Judge | Missing:
        """Return who draws the masks: the ensemble, or the best lone run."""
        place = self.place
        if place.ensemble is not None:
            return judge.of_ensemble(place.ensemble, place.runs, place.spec)
        wanted = "mask" if place.spec.kind == "segmentation" else "label"
        for row in evaluate.list_runs(place.runs):
            if row.predicts == wanted:
                return judge.of_run(place.runs / row.run, place.spec)
        return Missing(
            f"No finished run predicts a {wanted}, so there is nothing to judge yet.",
            place.command("train fold=0"),
        )

    @cached_property
    def result(self) -> PerImage | Missing:
        """Return what every image is worth: cross-fitted for an ensemble, else at default rules."""
        place, judged = self.place, self.judged
        if isinstance(judged, Missing):
            return judged
        if place.images_file is not None:
            return evaluate.per_image_ensemble(place.images_file, place.spec)
        return self._alone(judged.name, self.folds)

    def _alone(self, run: str, only: Folds) -> PerImage:
        place = self.place
        return evaluate.per_image(
            place.runs / run, place.spec, place.data, only=only, progress=self.progress
        )

    def _submitted(self) -> spent.Submitted | Missing:
        if not self.place.submissions:
            return Missing("Nothing was submitted yet.", self.place.command("submit"))
        return spent.submitted(self.place.submissions)

    def _hours(self) -> spent.Hours | Missing:
        if not self.place.hours:
            return Missing("The ledger knows of no hour.", self.place.command("train fold=0"))
        return spent.hours(self.place.hours)

    def _members(self) -> Members | Missing:
        judged, described = self.judged, (self.place.ensemble or {}).get("members", [])
        if isinstance(judged, Missing):
            return judged
        voices = judged.voices[:MEMBERS]
        results = [self._alone(voice.run, self.sample) for voice in voices]
        rows = []
        for voice, result in zip(voices, results, strict=True):
            told = [one for one in described if one["run"] == voice.run]
            rows.append(
                Member(
                    run=voice.run,
                    predicts=voice.predicts,
                    folds=", ".join(str(fold) for one in told for fold in one["folds"]),
                    tta=", ".join(told[0]["tta"]) if told else "",
                    weight=voice.weight if told else None,
                    seconds=sum(float(one["seconds_per_image"]) for one in told) or None,
                    worth=_worth(told),
                    alone=assess(result, self.metric),
                )
            )
        # A gate is scored by which classes it sees: no number to compare with a mask's.
        kind = "mask" if judged.segmenters else "label"
        alike = [one for one, voice in zip(results, voices, strict=True) if voice.predicts == kind]
        common = shared(alike)
        return Members(
            tuple(rows),
            tuple(one.name for one in common),
            tuple(tuple(row) for row in correlations(common)),
            len(common[0].image_ids),
        )

    def _curves(self, judged: Judge) -> Sequence[Curve] | Missing:
        spec = self.place.spec
        if spec.kind == "classification" and spec.exclusive:
            return Missing("An image has exactly one class: the most probable, at no threshold.")
        clusters = {name: cluster for name, (cluster, _) in self.sample.items()}
        evidence = judge.evidence(judged, self.truth, clusters, self.progress)
        return curves(evidence, judged.rules, self.metric, spec.classes)

    def _gates(self) -> Sequence[Gate] | Missing:
        """Show the ensemble's calibrated gate, and every run that predicts labels as it is."""
        result, spec = self.result, self.place.spec
        found = []
        if isinstance(result, PerImage) and result.gate is not None:
            classes = by_class(spec.classes, result.gate, result.true > 0)
            found = [Gate(f"{result.name}, calibrated out of fold", classes)]
        for row in evaluate.list_runs(self.place.runs):
            if row.predicts == "label":
                (voice,) = judge.of_run(self.place.runs / row.run, spec).voices
                found += [raw_gate(voice, self.truth, self.folds, spec.classes)]
        if found:
            return found
        return Missing(
            "No finished run predicts labels, so there is no gate.",
            self.place.command("train recipe=NAME fold=0") + "   (a recipe with predicts: label)",
        )

    def _doubts(self) -> Sequence[Doubt] | Missing:
        judged, result = self.judged, self.result
        if isinstance(judged, Missing) or isinstance(result, Missing):
            return Missing("Labels are doubted by models that did not see them: there is none yet.")
        return find_doubts(
            judged, self._drawable(judged, result), self.truth, progress=self.progress
        )

    def _drawable(self, judged: Judge, result: PerImage) -> PerImage:
        known = judged.image_ids & self.folds.keys()
        return result.take([name for name in result.image_ids if name in known])

    def _cards(
        self, doubts: Sequence[Doubt] | Missing, twins: Sequence[Twins]
    ) -> Sequence[Card] | Missing:
        judged, result = self.judged, self.result
        if isinstance(judged, Missing) or isinstance(result, Missing):
            return Missing("The gallery shows what a run predicts out of fold.",
                           self.place.command("train fold=0"))  # fmt: skip
        if not self.limits.images:
            return Missing("The gallery was left out.", self.place.command("report --images 300"))
        drawable = self._drawable(judged, result)
        if not drawable.image_ids:
            raise DataError(
                f"{judged.name}: the images that it was scored on are not those of folds.csv",
                hint=self.place.command("ensemble"),
            )
        why = self._why(drawable, doubts, twins)
        share = (self.limits.megabytes * 1e6 - OVERHEAD) / max(len(why), 1)
        return make_cards(
            Source(judged, self.truth, self.folds, self.place.data / self.place.spec.train_images),
            why,
            whole=result.scores.size,
            bytes_each=int(min(share - TEXT_EACH, LARGEST)),
            progress=self.progress,
        )

    def _why(
        self, drawable: PerImage, doubts: Sequence[Doubt] | Missing, twins: Sequence[Twins]
    ) -> dict[str, tuple[str, ...]]:
        """Join the choice by cost with the images whose labels are in doubt."""
        limit = self.limits.images
        there = set(drawable.image_ids)
        doubted = [] if isinstance(doubts, Missing) else [one.image_id for one in doubts]
        doubted += [image_id for one in twins for image_id, _ in one.images if image_id in there]
        doubted = list(dict.fromkeys(doubted))[: limit // 4]
        chosen = errors.choose(drawable, limit)
        room = limit - len(set(doubted) - chosen.keys())
        kept = dict(pair for at, pair in enumerate(chosen.items()) if at < room)
        for image_id in doubted:
            kept[image_id] = (*chosen.get(image_id, ()), "doubted")
        return dict(list(kept.items())[:limit])


def _there(result: PerImage) -> tuple[int, ...]:
    return tuple(int(count) for count in (result.true > 0).sum(axis=0))


def _worth(told: Sequence[Mapping[str, Any]]) -> float | None:
    """Return what the ensemble's JSON says that a run is worth to it."""
    found = [one["worth"] for one in told if one.get("worth") is not None]
    return float(found[0]) if found else None


def correlations(results: Sequence[PerImage]) -> list[list[float | None]]:
    """Return how alike the results' scores are image by image (Pearson); None where one is flat."""
    scores = np.stack([one.image_scores for one in results])
    scores = scores - scores.mean(axis=1, keepdims=True)
    size = np.sqrt((scores**2).sum(axis=1))
    many = range(len(results))
    return [
        [
            float(scores[a] @ scores[b] / (size[a] * size[b])) if size[a] * size[b] > 0 else None
            for b in many
        ]
        for a in many
    ]

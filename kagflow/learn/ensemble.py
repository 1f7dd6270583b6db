"""Join finished runs into what the kernel will run, and say honestly what that is worth."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

from kagflow.errors import DataError, UsageError
from kagflow.learn import describe, full
from kagflow.learn.blend import Blend
from kagflow.learn.choice import Chosen, Costs, Judge
from kagflow.learn.decide import Decision, decide
from kagflow.learn.evaluate import Facts, check_data, read_run
from kagflow.learn.evidence import Evidence, count_blends, from_labels, open_member
from kagflow.learn.perimage import PerImage, from_counts, images_of
from kagflow.learn.pool import Pool, open_pool
from kagflow.learn.search import Found, make_parts
from kagflow.learn.shed import shedding
from kagflow.learn.sketch import LabelTrials, Sketch, Trials, make_sketch
from kagflow.naming import fold_order
from kagflow.progress import QUIET, Progress
from kagflow.task import metric
from kagflow.task.folds import Folds, read_folds
from kagflow.task.labels import read_labels
from kagflow.task.spec import TaskSpec

SCHEMA = 1

Runs = Mapping[str, Sequence[Path]]


@dataclass(frozen=True)
class Wish:
    """Say what is wanted: a name, and the most `minutes` that `images` of the test may take.

    `complete` refuses runs that lack a fold.
    """

    name: str = "default"
    minutes: float | None = None
    images: int | None = None
    complete: bool = False


class Built(NamedTuple):
    """An ensemble as plain JSON values, and what each of its images is worth, cross-fitted."""

    value: dict[str, Any]
    images: PerImage


class _Tuned(NamedTuple):
    """What came of a search: `masks` and `gates` are the runs that were in it."""

    masks: tuple[str, ...]
    gates: tuple[str, ...]
    judge: Judge
    decision: Decision

    @property
    def chosen(self) -> Chosen:
        """Who counts how much."""
        return self.decision.chosen

    @property
    def evidence(self) -> Evidence:
        """What they say of every image."""
        return self.decision.evidence

    @property
    def found(self) -> Found:
        """The rules, and what they are worth."""
        return self.decision.found


def build_ensemble(
    runs: Runs,
    spec: TaskSpec,
    data: Path,
    *,
    home: Path,
    wish: Wish | None = None,
    progress: Progress | None = None,
) -> Built:
    """Return the best ensemble of runs, {run name: fold folders}, and its cross-fitted images.

    Members and their weights are chosen, then post-processing is tuned, on the images that all
    predict out of fold. Runs that predict labels are the gate, and stay out where it gains no class
    anything on unseen parts. The same runs give the same value. Weights trained on everything join
    their run's; nothing judges them. Raises DataError where there is no such image, no run
    predicts what the task needs, a store does not fit the data, or runs were trained on other data
    than lies in `data`; RefusedError for runs on everything with no fold beside; UsageError where
    nothing is fast enough.
    """
    wish = wish or Wish()
    facts = {run: [read_run(folder) for folder in folders] for run, folders in runs.items()}
    check_data(facts, data)
    full.check_twins(facts)
    folds = read_folds(data / "folds.csv")
    house = _House(full.judged(runs, facts), facts, spec, data, folds, wish, progress or QUIET)
    tuned, first = house.tune()
    value = _value(tuned, house, runs, home)
    value["candidates"] = [describe.candidate(one, first.masks) for one in first.chosen.table]
    return Built(value, _images(tuned, house))


@dataclass(frozen=True)
class _House:
    """Everything that a search reads."""

    runs: Runs
    facts: Facts
    spec: TaskSpec
    data: Path
    folds: Folds
    wish: Wish
    progress: Progress

    def tune(self) -> tuple[_Tuned, _Tuned]:
        """Search, and again without what gains nothing while that changes the images or the gate.

        Return the last search and the first, which looked at every run.
        """
        needed = "mask" if self.spec.kind == "segmentation" else "label"
        found = {kind: self._predicting(kind) for kind in ("mask", "label")}
        if not found[needed]:
            raise DataError(
                f"no run predicts '{needed}', which {self.spec.kind} needs",
                hint=f"Train a recipe with predicts: {needed}.",
            )
        masks, gates = (found["mask"], found["label"]) if needed == "mask" else (found[needed], ())
        tuned = first = self._search(masks, gates)
        while (used := _used(tuned)) != (tuned.masks, tuned.gates):
            dropped = sorted({*tuned.masks, *tuned.gates} - {*used[0], *used[1]})
            # What is left out no longer decides on which images the others are judged.
            if used[1] == tuned.gates and self._share(*used) == len(tuned.evidence.true):
                break
            self.progress.note(f"{', '.join(dropped)}: no gain on unseen images, left out")
            tuned = self._search(*used)
        return tuned, first

    def _share(self, masks: Sequence[str], gates: Sequence[str]) -> int:
        """Count the images that some runs have in common."""
        known = [{one["fold"] for one in self.facts[run]} for run in (*masks, *gates)]
        common = set.intersection(*known)
        return sum(fold in common for _, fold in self.folds.values())

    def costs(self, masks: Sequence[str], gates: Sequence[str]) -> Costs:
        """Return what members cost, with all their folds; raises UsageError where none fits."""
        each = {run: self._seconds(run) for run in (*masks, *gates)}
        limit = float("inf")
        if self.wish.minutes is not None and self.wish.images:
            limit = self.wish.minutes * 60 / self.wish.images
        cheapest = min(masks, key=lambda run: (each[run], run))
        if each[cheapest] > limit:
            minutes = each[cheapest] * (self.wish.images or 0) / 60
            raise UsageError(
                f"no run fits {self.wish.minutes:g} minutes: the fastest, {cheapest}, takes "
                f"{minutes:.1f} for {self.wish.images} images on {self._device(cheapest)}",
                hint="Allow more --minutes, or train fewer folds, a smaller size or fewer views.",
            )
        return Costs(tuple(each[run] for run in masks), tuple(each[run] for run in gates), limit)

    def _predicting(self, kind: str) -> tuple[str, ...]:
        return tuple(sorted(run for run, f in self.facts.items() if f[0]["predicts"] == kind))

    def _seconds(self, run: str) -> float:
        return sum(float(one["seconds_per_image"]) for one in full.with_cost(self.facts[run]))

    def _device(self, run: str) -> str:
        return str(self.facts[run][0].get("device", "the machine that trained it"))

    def _search(self, masks: tuple[str, ...], gates: tuple[str, ...]) -> _Tuned:
        measure, spec = metric.load(self.spec), self.spec
        clusters = {image: cluster for image, (cluster, _) in self.folds.items()}
        truth = read_labels(self.data / spec.train_csv, spec, only=clusters)
        stores = [open_member(self.runs[run], self.folds) for run in (*masks, *gates)]
        pool = open_pool(stores, truth, spec, clusters)
        self._check_complete(pool, (*masks, *gates))
        parts = make_parts(pool.clusters, pool.true > 0)
        judge = Judge(self._trials(pool), measure, parts, self.costs(masks, gates))
        decision = decide(judge, lambda blends: self._count(pool, blends), self.progress)
        return _Tuned(masks, gates, judge, decision)

    def _trials(self, pool: Pool) -> Trials:
        if self.spec.kind == "classification":
            return LabelTrials(pool)
        # A lone member leaves nothing to try.
        return Sketch(pool, ()) if len(pool.masks) == 1 else make_sketch(pool, self.progress)

    def _count(self, pool: Pool, blends: Sequence[Blend]) -> list[Evidence]:
        """Count blends from every pixel."""
        if self.spec.kind == "classification":
            return [from_labels(pool, blend) for blend in blends]
        return count_blends(pool, blends, self.progress)

    def _check_complete(self, pool: Pool, used: Sequence[str]) -> None:
        numbers = {fold for _, fold in self.folds.values()}
        short = [run for run in used if numbers - {one["fold"] for one in self.facts[run]}]
        if not short:
            return
        what = f"{', '.join(short)}: not every fold is trained"
        if self.wish.complete:
            raise DataError(what, hint="kagflow train fold=all, or leave --complete out")
        self.progress.note(f"{what}; judged on {len(pool.names)} of {len(self.folds)} images")


def _used(tuned: _Tuned) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return the runs that count: segmenters with a weight, gates that a rule asks."""
    masks = tuple(tuned.masks[at] for at in tuned.chosen.blend.members)
    asked = any(rule.gate or rule.soft > 1 for rule in tuned.found.rules)
    if tuned.chosen.gate is None or not asked:
        return masks, ()
    return masks, tuple(tuned.gates[at] for at in tuned.chosen.gate.members)


def _images(tuned: _Tuned, house: _House) -> PerImage:
    return from_counts(
        house.wish.name,
        house.spec.classes,
        images_of(tuned.evidence.image_ids, house.folds),
        tuned.found.outside[[2, 1, 0]],
        metric.load(house.spec),
        gate=describe.calibrated(tuned.evidence, tuned.found),
    )


def _value(tuned: _Tuned, house: _House, runs: Runs, home: Path) -> dict[str, Any]:
    """Write an ensemble down: what the kernel reads, and everything that was measured."""
    facts, spec, chosen, found = house.facts, house.spec, tuned.chosen, tuned.found
    first = facts[tuned.masks[0]][0]
    shed = [
        {"run": tuned.masks[at], "worth": worth, "seconds_per_image": seconds}
        for at, worth, seconds in shedding(tuned.judge, chosen, found)
    ]
    members = _members(tuned, house, runs, home, shed=shed)
    used = {one["run"] for one in members}
    measured = describe.cv(
        tuned.evidence, found, metric.load(spec), house.folds, {run: facts[run] for run in used}
    )
    return {
        "schema": SCHEMA,
        "competition": first["competition"],
        "name": house.wish.name,
        "profile": json.loads((house.data / "manifest.json").read_text())["profile"],
        "data": first["data"],
        "task": spec.to_dict(),
        "considered": {
            run: sorted((one["fold"] for one in facts[run]), key=fold_order)
            for run in sorted(facts)
        },
        "kind": chosen.kind,
        "members": members,
        "shedding": shed,
        "rules": [asdict(rule) for rule in found.rules],
        "kinds": list(found.kinds),
        "gains": describe.gains(tuned.decision, metric.load(spec)),
        "gates": describe.gates(tuned.evidence, found, spec.classes),
        "cost": describe.cost(members, facts, minutes=house.wish.minutes, images=house.wish.images),
        "cv": full.labelled(measured, {run: facts[run] for run in used}),
    }


def _members(
    tuned: _Tuned, house: _House, runs: Runs, home: Path, *, shed: Sequence[Mapping[str, Any]]
) -> list[dict[str, Any]]:
    """List segmenters by worth per second, the first to be shed last, then the gates."""
    blend, gate = tuned.chosen.blend, tuned.chosen.gate
    share = dict(zip(tuned.masks, blend.weights, strict=True))
    worth = {one["run"]: one["worth"] for one in shed}
    ordered = [(one["run"], share[one["run"]], blend.logits) for one in reversed(shed)]
    if gate is not None:
        seen = zip(tuned.gates, gate.weights, strict=True)
        ordered += [(run, weight, False) for run, weight in seen if weight]
    return [
        entry
        for run, weight, logits in ordered
        for entry in describe.weighted(
            describe.members(run, runs[run], house.facts[run], home),
            weight,
            logits=logits,
            worth=worth.get(run),
        )
    ]

"""Join finished runs into what the kernel will run, and say honestly what that is worth."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple

from kagflow.errors import DataError, RefusedError
from kagflow.learn import full
from kagflow.learn.cache import data_hash
from kagflow.learn.evaluate import read_run
from kagflow.learn.evidence import Evidence, gather, open_member
from kagflow.learn.perimage import PerImage, from_counts, images_of
from kagflow.learn.search import Found, search, untuned
from kagflow.naming import fold_order
from kagflow.progress import QUIET, Progress
from kagflow.task import metric
from kagflow.task.folds import Folds, read_folds
from kagflow.task.labels import read_labels
from kagflow.task.spec import TaskSpec

SCHEMA = 1
ONE_FOLD = "one fold, not cross-fitted"

Runs = Mapping[str, Sequence[Path]]


class Built(NamedTuple):
    """An ensemble as plain JSON values, and what each of its images is worth, cross-fitted."""

    value: dict[str, Any]
    images: PerImage


def build_ensemble(
    runs: Runs,
    spec: TaskSpec,
    data: Path,
    *,
    home: Path,
    name: str,
    progress: Progress | None = None,
) -> Built:
    """Return the ensemble of runs, {run name: fold folders}, and its cross-fitted images.

    Runs that predict masks are averaged with equal weight; those that predict labels are the
    gate, and stay out where it gains no class anything on unseen parts. The post-processing is
    tuned on the images that all members predict out of fold. The same runs give the same value.
    Weights trained on everything join their run's; nothing judges them. Raises DataError where
    there is no such image or no run predicts what the task needs, and RefusedError for runs trained
    on other data than what lies in `data`, or on everything with no fold beside.
    """
    facts = {run: [read_run(folder) for folder in folders] for run, folders in runs.items()}
    _check_data(facts, data)
    full.check_twins(facts)
    everything, runs = runs, full.judged(runs, facts)
    chosen = _useful(facts, spec)
    folds = read_folds(data / "folds.csv")
    evidence, found = _tune(runs, chosen, spec, data, folds=folds, progress=progress or QUIET)
    gates = [run for run in chosen if facts[run][0]["predicts"] == "label"]
    if spec.kind == "segmentation" and gates and not any(rule.gate > 0 for rule in found.rules):
        chosen = [run for run in chosen if run not in gates]
        (progress or QUIET).note(f"the gate of {', '.join(gates)} gains nothing: left out")
        evidence, found = _tune(runs, chosen, spec, data, folds=folds, progress=progress or QUIET)
    first = facts[chosen[0]][0]
    value = {
        "schema": SCHEMA,
        "competition": first["competition"],
        "name": name,
        "profile": json.loads((data / "manifest.json").read_text())["profile"],
        "data": first["data"],
        "task": spec.to_dict(),
        "considered": {
            run: sorted((one["fold"] for one in facts[run]), key=fold_order)
            for run in sorted(facts)
        },
        "members": [
            one for run in chosen for one in _members(run, everything[run], facts[run], home)
        ],
        "rules": [asdict(rule) for rule in found.rules],
        "cv": full.labelled(_cv(evidence, found, folds), {run: facts[run] for run in chosen}),
    }
    images = from_counts(
        name,
        spec.classes,
        images_of(evidence.image_ids, folds),
        found.outside[[2, 1, 0]],
        metric.load(spec),
    )
    return Built(value, images)


def _tune(
    runs: Runs,
    chosen: Sequence[str],
    spec: TaskSpec,
    data: Path,
    *,
    folds: Folds,
    progress: Progress,
) -> tuple[Evidence, Found]:
    clusters = {image: cluster for image, (cluster, _) in folds.items()}
    truth = read_labels(data / spec.train_csv, spec, only=clusters)
    members = [open_member(runs[run]) for run in chosen]
    evidence = gather(members, truth, spec, clusters=clusters, progress=progress)
    # The most probable of exclusive classes is what it is: there is no threshold to find.
    single = spec.kind == "classification" and spec.exclusive
    return evidence, (untuned if single else search)(evidence, metric.load(spec))


def _check_data(facts: Mapping[str, Sequence[Mapping[str, Any]]], data: Path) -> None:
    here = data_hash(data)
    other = sorted(run for run, ones in facts.items() if any(one["data"] != here for one in ones))
    if other:
        raise RefusedError(
            f"{', '.join(other)}: trained on other data than {data} holds now",
            hint="Name runs of this data, or train again under another name=.",
        )


def _useful(facts: Mapping[str, Sequence[Mapping[str, Any]]], spec: TaskSpec) -> list[str]:
    needed = "mask" if spec.kind == "segmentation" else "label"
    if not any(ones[0]["predicts"] == needed for ones in facts.values()):
        raise DataError(
            f"no run predicts '{needed}', which {spec.kind} needs",
            hint=f"Train a recipe with predicts: {needed}.",
        )
    useful = ("mask", "label") if spec.kind == "segmentation" else ("label",)
    return sorted(run for run, ones in facts.items() if ones[0]["predicts"] in useful)


def _members(
    run: str, folders: Sequence[Path], facts: Sequence[Mapping[str, Any]], home: Path
) -> list[dict[str, Any]]:
    """Describe a run for the engine: one member, or one a fold where folds have assets.

    The assets of a fold are made of its own training part, so its input differs from the others'.
    """
    facts = full.with_cost(facts)
    pairs = sorted(zip(facts, folders, strict=True), key=lambda pair: fold_order(pair[0]["fold"]))
    if not facts[0].get("assets"):
        return [_member(run, pairs, home, weight=1.0)]
    return [_member(run, [pair], home, weight=1 / len(pairs)) for pair in pairs]


def _member(
    run: str, pairs: Sequence[tuple[Mapping[str, Any], Path]], home: Path, *, weight: float
) -> dict[str, Any]:
    """Describe folds of a run; their cost is that of all of them, one after another."""
    recipe, first = pairs[0][0]["recipe"], pairs[0][1]

    def inside(path: Path) -> str:
        return path.resolve().relative_to(home.resolve()).as_posix()

    return {
        "run": run,
        "folds": [fact["fold"] for fact, _ in pairs],
        "predicts": pairs[0][0]["predicts"],
        "weight": weight,
        "model": recipe["model"],
        "input": recipe["input"],
        "size": recipe["size"],
        "tta": list(recipe["tta"]),
        "weights": [inside(folder / "best.safetensors") for _, folder in pairs],
        "assets": {
            name: inside(first / "assets" / name) for name in pairs[0][0].get("assets") or {}
        },
        "seconds_per_image": sum(float(fact["seconds_per_image"]) for fact, _ in pairs),
    }


def _cv(evidence: Evidence, found: Found, folds: Folds) -> dict[str, Any]:
    """Say what the scores are of; a single fold gives no cross-fitted score."""
    covered = {folds[image][1] for image in evidence.image_ids}
    single = len(covered) == 1
    return {
        "naive": found.naive.value,
        "crossfitted": None if single else found.crossfitted.value,
        "default": found.default.value,
        "floor": found.naive.floor,
        "nonempty": (found.naive if single else found.crossfitted).nonempty,
        "images": len(evidence.image_ids),
        "of": len(folds),
        "partial": len(evidence.image_ids) < len(folds),
        "label": ONE_FOLD if single else f"cross-fitted over {len(covered)} folds",
    }

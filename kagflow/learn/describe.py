"""An ensemble as plain JSON values: members, candidates, gates and what it is all worth."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kagflow.infer.members import MEANS
from kagflow.learn import full
from kagflow.learn.blend import Blend
from kagflow.learn.calibrate import area_under_curve, expected_error
from kagflow.learn.choice import Candidate
from kagflow.learn.decide import Decision
from kagflow.learn.evaluate import Facts
from kagflow.learn.evidence import Evidence
from kagflow.learn.resample import interval, paired
from kagflow.learn.search import Found, default_counts, reliability
from kagflow.naming import fold_order
from kagflow.task.folds import Folds
from kagflow.task.metric import Metric

ONE_FOLD = "one fold, not cross-fitted"


def members(
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


def weighted(
    entries: Sequence[dict[str, Any]], weight: float, *, logits: bool, worth: float | None
) -> list[dict[str, Any]]:
    """Give a run's entries their share of an ensemble, and what the run is worth to it."""
    told = {"mean": MEANS[int(logits)], "worth": worth}
    return [one | told | {"weight": one["weight"] * weight} for one in entries]


def candidate(one: Candidate, runs: Sequence[str]) -> dict[str, Any]:
    """Describe a candidate; its scores are of the sketch."""
    return {
        "kind": one.kind,
        "mean": MEANS[int(one.blend.logits)],
        "weights": weights(one.blend, runs),
        "naive": one.naive,
        "crossfitted": one.crossfitted,
        "default": one.default,
        "gain": one.gain,
        "error": one.error,
        "taken": one.taken,
    }


def weights(blend: Blend, runs: Sequence[str]) -> dict[str, float]:
    """Return the share of each run that counts."""
    return {run: share for run, share in zip(runs, blend.weights, strict=True) if share}


def gates(evidence: Evidence, found: Found, classes: Sequence[str]) -> list[dict[str, Any]]:
    """Say of each class how far the gate's probability can be believed.

    `ece` and `ece_raw` are the expected calibration errors of calibrated and raw probabilities;
    each image's calibration was fitted without its part.
    """
    rows = []
    for index, name in enumerate(classes):
        known = reliability(evidence, index, found.parts)
        if known is None:
            continue
        rows.append(
            {
                "class": name,
                "calibration": known.curve().kind,
                "ece_raw": expected_error(known.probs, known.present),
                "ece": expected_error(known.outside(), known.present),
                "auc": area_under_curve(known.probs, known.present),
            }
        )
    return rows


def calibrated(evidence: Evidence, found: Found) -> NDArray[np.float64] | None:
    """Return each image's probability of each class (N, C), calibrated without its part."""
    known = [reliability(evidence, index, found.parts) for index in range(evidence.true.shape[1])]
    columns = [one.outside() for one in known if one is not None]
    return np.stack(columns, axis=1) if columns else None


def cv(
    evidence: Evidence, found: Found, metric: Metric, folds: Folds, facts: Facts
) -> dict[str, Any]:
    """Say what the scores are of; a single fold gives no cross-fitted score.

    `missing` names the folds that a run lacks; `interval` is of the cross-fitted score, 95 %.
    """
    numbers = sorted({fold for _, fold in folds.values()})
    covered = {folds[image][1] for image in evidence.image_ids}
    single = len(covered) == 1
    scores = metric(*found.outside).reshape(len(evidence.image_ids), -1).mean(axis=1)
    missing = {
        run: [fold for fold in numbers if fold not in {one["fold"] for one in ones}]
        for run, ones in sorted(facts.items())
    }
    return {
        "naive": found.naive.value,
        "crossfitted": None if single else found.crossfitted.value,
        "interval": None if single else list(interval(scores, evidence.clusters)),
        "default": found.default.value,
        "floor": found.naive.floor,
        "nonempty": (found.naive if single else found.crossfitted).nonempty,
        "images": len(evidence.image_ids),
        "of": len(folds),
        "partial": len(evidence.image_ids) < len(folds),
        "missing": {run: gone for run, gone in missing.items() if gone},
        "label": ONE_FOLD if single else f"cross-fitted over {len(covered)} folds",
    }


def gains(decision: Decision, metric: Metric) -> dict[str, dict[str, Any]]:
    """Say what tuning, the gate and joining members gain, cross-fitted, with 95 % intervals.

    Tuning is compared with default rules on the same members, the rest with everything else done
    as well as it can be without.
    """
    evidence, found = decision.evidence, decision.found

    def scores(counts: NDArray[np.int64]) -> NDArray[np.float64]:
        values: NDArray[np.float64] = metric(*counts).reshape(counts.shape[1], -1).mean(axis=1)
        return values

    plain = {"tuning": default_counts(evidence)}
    if decision.ungated is not None:
        plain["gate"] = decision.ungated.outside
    if decision.single is not None:
        plain["ensemble"] = decision.single.outside
    said = {}
    for name, counts in plain.items():
        one = paired(scores(found.outside), scores(counts), evidence.clusters)
        said[name] = {
            "gain": one.difference,
            "interval": [one.low, one.high],
            "better": one.better,
        }
    return said


def cost(
    members: Sequence[Mapping[str, Any]], facts: Facts, *, minutes: float | None, images: int | None
) -> dict[str, Any]:
    """Say what an image and a whole test set take, where the members were measured."""
    seconds = sum(float(one["seconds_per_image"]) for one in members)
    devices = {str(fact.get("device", "")) for one in members for fact in facts[one["run"]]}
    return {
        "seconds_per_image": seconds,
        "measured_on": sorted(devices),
        "images": images,
        "minutes": None if images is None else seconds * images / 60,
        "limit_minutes": minutes,
    }


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

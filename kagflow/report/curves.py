"""How the score of each class depends on its threshold."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
from numpy.typing import NDArray

from kagflow.infer.postprocess import ClassRule
from kagflow.learn.evidence import THRESHOLDS, count_image
from kagflow.progress import QUIET, Progress
from kagflow.report import charts
from kagflow.report.judge import Judge
from kagflow.task import rle
from kagflow.task.metric import Metric

_Counts = tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]


@dataclass(frozen=True)
class Curve:
    """One class's chart, its numbers (threshold, score alone, score with area and gate), its rule.

    `rule` tells what the ensemble does with the class, in words.
    """

    label: str
    svg: str
    numbers: tuple[tuple[float, float, float], ...]
    chosen: float | None
    floor: float
    rule: str


@dataclass(frozen=True)
class Areas:
    """Hold pixels (labels: 0 or 1) of N images, C classes and T thresholds.

    `true` (N, C), `predicted` and `intersection` (N, C, T); `gate` (N, C) is what the gate says.
    """

    true: NDArray[np.int64]
    predicted: NDArray[np.int64]
    intersection: NDArray[np.int64]
    gate: NDArray[np.float32] | None


def areas(
    judge: Judge,
    truth: Mapping[str, Mapping[int, str]],
    image_ids: Sequence[str],
    progress: Progress = QUIET,
) -> Areas:
    """Count what a judge's maps hold above every threshold."""
    progress.start("measure thresholds", len(image_ids), "images")
    found = []
    with ThreadPoolExecutor(os.cpu_count() or 1) as pool:
        for one in pool.map(partial(_areas, judge, truth), image_ids):
            found.append(one)
            progress.advance()
    progress.finish()
    true, predicted, both = (np.array(part, np.int64) for part in zip(*found, strict=True))
    gated = judge.spec.kind == "segmentation" and bool(judge.gates)
    gate = [judge.labels(image_id) for image_id in image_ids] if gated else None
    return Areas(true, predicted, both, None if gate is None else np.array(gate, np.float32))


def _areas(judge: Judge, truth: Mapping[str, Mapping[int, str]], image_id: str) -> _Counts:
    classes, real = len(judge.spec.classes), truth.get(image_id, {})
    if judge.spec.kind == "classification":
        labels = judge.labels(image_id)
        assert labels is not None
        there = np.array([int(c in real) for c in range(classes)])
        above = (labels[:, None] >= THRESHOLDS).astype(np.int64)
        return there, above, above * there[:, None]
    predicted, both = count_image(judge.probs(image_id), real)
    return np.array([rle.area(real.get(c, "")) for c in range(classes)]), predicted, both


def curves(
    evidence: Areas,
    rules: Sequence[ClassRule],
    metric: Metric,
    labels: Sequence[str],
    *,
    masks: bool,
) -> list[Curve]:
    """Return a curve for each class; one class at a time, the others play no part in it.

    The rules for components, seeds and soft gates are left out: areas do not tell their effect.
    """
    return [
        replace(_curve(evidence, rule, metric, c), label=label, rule=describe(rule, masks=masks))
        for c, (rule, label) in enumerate(zip(rules, labels, strict=True))
    ]


def describe(rule: ClassRule, *, masks: bool) -> str:
    """Say a rule in words."""
    if rule.empty:
        return "never predicted"
    parts = [f"from {rule.threshold:.3g}"]
    if masks and rule.min_component > 1:
        parts.append(f"components from {rule.min_component} px")
    if masks and rule.min_area:
        counted = f" reaching {rule.seed:.3g}" if rule.seed else ""
        parts.append(f"at least {rule.min_area} px{counted}")
    if masks and rule.soft > 1:
        parts.append(f"up to {rule.soft:.3g} times as many where the gate doubts")
    if masks and rule.gate:
        parts.append(f"gate from {rule.gate:.3g}")
    return ", ".join(parts)


def _curve(evidence: Areas, rule: ClassRule, metric: Metric, c: int) -> Curve:
    true = evidence.true[:, c : c + 1]
    kept = _kept(evidence, rule, c)
    alone, ruled = [], []
    for at in range(len(THRESHOLDS)):
        predicted = evidence.predicted[:, c, at : at + 1]
        both = evidence.intersection[:, c, at : at + 1]
        stays = kept[:, at : at + 1]
        alone.append(float(metric(both, predicted, true).mean()))
        ruled.append(float(metric(both * stays, predicted * stays, true).mean()))
    nothing = np.zeros_like(true)
    floor = float(metric(nothing, nothing, true).mean())
    chosen = None if rule.empty else rule.threshold
    x = [float(value) for value in THRESHOLDS]
    return Curve(
        label="",
        svg=_draw(c, x, alone, ruled, floor, chosen),
        numbers=tuple(zip(x, alone, ruled, strict=True)),
        chosen=chosen,
        floor=floor,
        rule="",
    )


def _kept(evidence: Areas, rule: ClassRule, c: int) -> NDArray[np.bool_]:
    """Tell which images' masks pass the rule for the whole area and the gate's veto: (N, T)."""
    kept: NDArray[np.bool_] = evidence.predicted[:, c] >= rule.min_area
    if evidence.gate is not None and rule.gate:
        kept = kept & (evidence.gate[:, c] >= np.float32(rule.gate))[:, None]
    return kept


def _draw(
    c: int,
    x: list[float],
    alone: list[float],
    ruled: list[float],
    floor: float,
    chosen: float | None,
) -> str:
    lines = [charts.Line("threshold alone", x, alone)]
    if ruled != alone:
        lines.append(charts.Line("with area and gate", x, ruled, charts.ORANGE))
    lines.append(charts.Line("predicting nothing", [0, 1], [floor] * 2, charts.FAINT, dashed=True))
    axes = charts.Axes("threshold", "score of the class", x_limits=(0, 1))
    return charts.plot(f"curve{c}", lines, axes, at=chosen)

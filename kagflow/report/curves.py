"""How the score of each class depends on its threshold."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from kagflow.infer.postprocess import ClassRule
from kagflow.learn.evidence import THRESHOLDS, Evidence
from kagflow.report import charts
from kagflow.task.metric import Metric


@dataclass(frozen=True)
class Curve:
    """One class's chart, its numbers (threshold, score alone, score with the area rule), its rule.

    `rule` tells what the ensemble does with the class, in words.
    """

    label: str
    svg: str
    numbers: tuple[tuple[float, float, float], ...]
    chosen: float | None
    floor: float
    rule: str


def curves(
    evidence: Evidence, rules: Sequence[ClassRule], metric: Metric, labels: Sequence[str]
) -> list[Curve]:
    """Return a curve for each class; one class at a time, the others play no part in it."""
    return [
        replace(_curve(evidence, rule, metric, c), label=label)
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


def _curve(evidence: Evidence, rule: ClassRule, metric: Metric, c: int) -> Curve:
    true = evidence.true[:, c : c + 1]
    alone, ruled = [], []
    large = evidence.predicted[:, c] >= rule.min_area
    for at in range(len(THRESHOLDS)):
        predicted = evidence.predicted[:, c, at : at + 1]
        both = evidence.intersection[:, c, at : at + 1]
        kept = large[:, at : at + 1]
        alone.append(float(metric(both, predicted, true).mean()))
        ruled.append(float(metric(both * kept, predicted * kept, true).mean()))
    nothing = np.zeros_like(true)
    floor = float(metric(nothing, nothing, true).mean())
    x = [float(value) for value in THRESHOLDS]
    lines = [charts.Line("threshold alone", x, alone)]
    if rule.min_area:
        lines.append(charts.Line("with the minimum area", x, ruled, charts.ORANGE))
    lines.append(charts.Line("predicting nothing", [0, 1], [floor] * 2, charts.FAINT, dashed=True))
    svg = charts.plot(
        f"curve{c}",
        lines,
        charts.Axes("threshold", "score of the class", x_limits=(0, 1)),
        at=None if rule.empty else rule.threshold,
    )
    return Curve(
        label="",
        svg=svg,
        numbers=tuple(zip(x, alone, ruled, strict=True)),
        chosen=None if rule.empty else rule.threshold,
        floor=floor,
        rule=describe(rule, masks=evidence.pixels > 1),
    )

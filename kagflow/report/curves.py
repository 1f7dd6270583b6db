"""How the score of each class depends on its threshold."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from kagflow.infer.postprocess import ClassRule
from kagflow.learn.evidence import THRESHOLDS, Evidence
from kagflow.report import charts
from kagflow.task.metric import Metric


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


def curves(
    evidence: Evidence, rules: Sequence[ClassRule], metric: Metric, labels: Sequence[str]
) -> list[Curve]:
    """Return a curve for each class; one class at a time, the others play no part in it.

    The rules for components, seeds and soft gates are left out: areas do not tell their effect.
    """
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
        rule=describe(rule, masks=evidence.pixels > 1),
    )


def _kept(evidence: Evidence, rule: ClassRule, c: int) -> NDArray[np.bool_]:
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

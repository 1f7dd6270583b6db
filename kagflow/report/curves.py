"""How the score of each class depends on its threshold."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from kagflow.infer.postprocess import ClassRule
from kagflow.learn.evidence import Evidence
from kagflow.report import charts
from kagflow.task.metric import Metric


@dataclass(frozen=True)
class Curve:
    """One class's chart and its numbers: threshold, score alone, score under the other rules.

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
        _curve(evidence, rule, metric, c, label)
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


def _curve(evidence: Evidence, rule: ClassRule, metric: Metric, c: int, label: str) -> Curve:
    true = evidence.true[:, c : c + 1]
    at_all = [float(value) for value in evidence.thresholds]
    alone = _scores(evidence, ClassRule(), at_all, metric, c)
    at, ruled = _ruled(evidence, replace(rule, empty=False), metric, c)
    nothing = np.zeros_like(true)
    floor = float(metric(nothing, nothing, true).mean())
    chosen = None if rule.empty else rule.threshold
    known = dict(zip(at, ruled, strict=True))
    return Curve(
        label=label,
        svg=_draw(c, (at_all, alone), (at, ruled), floor, chosen),
        numbers=tuple(
            (x, y, known.get(x, float("nan"))) for x, y in zip(at_all, alone, strict=True)
        ),
        chosen=chosen,
        floor=floor,
        rule=describe(rule, masks=evidence.pixels > 1),
    )


def _ruled(
    evidence: Evidence, rule: ClassRule, metric: Metric, c: int
) -> tuple[list[float], list[float]]:
    """Score a class under its rule at the thresholds at which that rule can be counted."""
    at: NDArray[np.float32] = evidence.thresholds
    if rule.min_component > 1:
        countable = evidence.components is not None and rule.min_component in evidence.areas
        if evidence.components is None or not countable:
            return [], []
        at = evidence.components[c].thresholds
    places = [float(value) for value in at if not rule.seed or value <= rule.seed]
    return places, _scores(evidence, rule, places, metric, c)


def _scores(
    evidence: Evidence, rule: ClassRule, at: Sequence[float], metric: Metric, c: int
) -> list[float]:
    true = evidence.true[:, c : c + 1]
    found = []
    for threshold in at:
        both, predicted = evidence.under(replace(rule, threshold=threshold), c)
        found.append(float(metric(both[:, None], predicted[:, None], true).mean()))
    return found


def _draw(
    c: int,
    alone: tuple[list[float], list[float]],
    ruled: tuple[list[float], list[float]],
    floor: float,
    chosen: float | None,
) -> str:
    lines = [charts.Line("threshold alone", *alone)]
    if ruled != alone and ruled[0]:
        lines.append(charts.Line("with the other rules", *ruled, charts.ORANGE))
    lines.append(charts.Line("predicting nothing", [0, 1], [floor] * 2, charts.FAINT, dashed=True))
    axes = charts.Axes("threshold", "score of the class", x_limits=(0, 1))
    return charts.plot(f"curve{c}", lines, axes, at=chosen)

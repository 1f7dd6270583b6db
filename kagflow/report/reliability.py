"""Whether the gate's probabilities mean what they say."""

from __future__ import annotations

from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from kagflow.learn.calibrate import area_under_curve, expected_error
from kagflow.report import charts
from kagflow.report.judge import Voice

BINS = 10


@dataclass(frozen=True)
class Bin:
    """Some probabilities: how many, what they say on average, and how often it was so."""

    count: int
    said: float
    was: float


@dataclass(frozen=True)
class Reliability:
    """One class of one gate: expected calibration error, area under the ROC, and its bins.

    `auc` is None where the class is always or never there.
    """

    label: str
    ece: float
    auc: float | None
    there: int
    bins: tuple[Bin, ...]


@dataclass(frozen=True)
class Gate:
    """One gate's reliability by class."""

    name: str
    classes: tuple[Reliability, ...]


def by_class(
    classes: Sequence[str], said: NDArray[np.float64], there: NDArray[np.bool_]
) -> tuple[Reliability, ...]:
    """Compare probabilities (N, C) with what was there (N, C), one class at a time."""
    return tuple(reliability(label, said[:, c], there[:, c]) for c, label in enumerate(classes))


def raw_gate(
    voice: Voice,
    truth: Mapping[str, Mapping[int, str]],
    known: Container[str],
    classes: Sequence[str],
) -> Gate:
    """Judge a run that predicts labels by the images that are `known`, as it is."""
    names = [name for name in voice.store if name in known]
    said = np.array([voice.store[name].label(name) for name in names], np.float64)
    there = np.zeros(said.shape, bool)
    for at, name in enumerate(names):
        there[at, list(truth.get(name, {}))] = True
    return Gate(voice.run, by_class(classes, said, there))


def reliability(label: str, said: NDArray[np.float64], was: NDArray[np.bool_]) -> Reliability:
    """Compare probabilities (N,) with what was true (N,); the bins are ten of equal width."""
    at = np.minimum((said * BINS).astype(int), BINS - 1)
    bins = tuple(
        Bin(int(rows.sum()), float(said[rows].mean()), float(was[rows].mean()))
        for rows in (at == number for number in range(BINS))
        if rows.any()
    )
    error, area = expected_error(said, was), area_under_curve(said, was)
    return Reliability(label, error, area, int(was.sum()), bins)


def chart(key: str, found: Sequence[Reliability]) -> str:
    """Draw all classes together against what perfect probabilities would show.

    A dot's area grows with the number of images that it stands for.
    """
    pooled = pool(found)
    most = max((one.count for one in pooled), default=1)
    dots = charts.Line(
        "all classes", [one.said for one in pooled], [one.was for one in pooled], charts.ORANGE,
        dots=[18 + 90 * one.count / most for one in pooled],
    )  # fmt: skip
    perfect = charts.Line("perfect", [0, 1], [0, 1], charts.FAINT, dashed=True)
    axes = charts.Axes("what the gate says", "how often it was so", (-0.03, 1.03), (-0.03, 1.03))
    return charts.plot(key, [dots, perfect], axes)


def pool(found: Sequence[Reliability]) -> list[Bin]:
    """Join the bins of all classes that lie at the same place."""
    places: dict[int, list[Bin]] = {}
    for one in (one for each in found for one in each.bins):
        places.setdefault(_place(one.said), []).append(one)
    joined = []
    for _, bins in sorted(places.items()):
        count = sum(one.count for one in bins)
        said = sum(one.count * one.said for one in bins) / count
        joined.append(Bin(count, said, sum(one.count * one.was for one in bins) / count))
    return joined


def _place(said: float) -> int:
    return min(int(said * BINS), BINS - 1)

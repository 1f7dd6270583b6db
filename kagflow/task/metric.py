"""Competition metrics: one elementwise function of pixel counts.

A metric takes (intersection, predicted, true), arrays (N, C) of counts, and returns scores (N, C),
or (N,) where it judges an image as a whole. For classification the counts are 0 or 1. The score
of a submission is the mean of what it returns. Nothing predicted where nothing is true scores 1.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from kagflow.resolve import resolve

if TYPE_CHECKING:
    from kagflow.task.spec import TaskSpec

Counts = NDArray[Any]
Metric = Callable[[Counts, Counts, Counts], NDArray[np.float64]]

METRICS = {
    "dice": "kagflow.task.metric:dice",
    "iou": "kagflow.task.metric:iou",
    "exact_match": "kagflow.task.metric:exact_match",
}


def load(spec: TaskSpec) -> Metric:
    """Find the competition's metric; raises UsageError on an unknown name."""
    metric: Metric = resolve(spec.metric, METRICS)
    return metric


def dice(intersection: Counts, predicted: Counts, true: Counts) -> NDArray[np.float64]:
    """Return 2 intersection / (predicted + true) elementwise; 1 where both are empty."""
    return _ratio(2 * np.asarray(intersection), np.asarray(predicted) + true)


def iou(intersection: Counts, predicted: Counts, true: Counts) -> NDArray[np.float64]:
    """Return intersection / union elementwise; 1 where both are empty."""
    return _ratio(intersection, np.asarray(predicted) + true - intersection)


def exact_match(intersection: Counts, predicted: Counts, true: Counts) -> NDArray[np.float64]:
    """Return (N,): 1 where every class of the image is predicted exactly, else 0."""
    same = (np.asarray(predicted) == intersection) & (np.asarray(true) == intersection)
    scores: NDArray[np.float64] = same.all(axis=-1).astype(np.float64)
    return scores


def _ratio(above: Counts, below: Counts) -> NDArray[np.float64]:
    below = np.asarray(below, np.float64)
    out: NDArray[np.float64] = np.ones_like(below)
    np.divide(above, below, out=out, where=below > 0)
    return out

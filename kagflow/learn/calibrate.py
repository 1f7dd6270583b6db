"""Make image-level probabilities mean what they say, and say how far they did.

Probabilities are counted in narrow bins of their logit, by part of the data, so that a curve can be
fitted without any part at the cost of an addition. A curve is judged on parts it was not fitted on.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import isotonic_regression, minimize_scalar

Float = NDArray[np.float64]
Excluded = frozenset[int]

_REACH = 10.0
_WIDTH = 0.05
CENTRES: Float = np.arange(-_REACH + _WIDTH / 2, _REACH, _WIDTH)
# No finite sample speaks for certainty.
_SURE = 1e-4
# Temperatures beyond e^3 make every probability the same.
_LOG_T = 3.0
# Bins of equal count, as in Nixon et al., "Measuring Calibration in Deep Learning" (2019).
_ECE_BINS = 15


def logit(probs: NDArray[Any]) -> Float:
    """Return log(p / (1 - p)), for p clipped to what the bins reach."""
    sure = 1 / (1 + np.exp(_REACH))
    clipped = np.clip(np.asarray(probs, np.float64), sure, 1 - sure)
    return np.asarray(np.log(clipped / (1 - clipped)))


def sigmoid(logits: NDArray[Any]) -> Float:
    """Return 1 / (1 + exp(-x))."""
    return np.asarray(1 / (1 + np.exp(-np.asarray(logits, np.float64))))


@dataclass(frozen=True)
class Curve:
    """Map raw probabilities to calibrated ones: `values` at the logits CENTRES, rising."""

    kind: str
    values: Float

    def __call__(self, probs: NDArray[Any]) -> Float:
        """Return calibrated probabilities."""
        return np.asarray(np.interp(logit(probs), CENTRES, self.values))

    def raw(self, level: float) -> float:
        """Return the lowest raw probability that is calibrated to at least `level`; 1 for none."""
        reached = np.flatnonzero(self.values >= level)
        return float(sigmoid(CENTRES[reached[0]])) if reached.size else 1.0


class Reliability:
    """Count one class's probabilities (N,) by bin, presence and part, and fit curves on parts."""

    def __init__(
        self, probs: NDArray[Any], present: NDArray[np.bool_], parts: NDArray[np.int64]
    ) -> None:
        self.probs, self.present, self.parts = probs, present, parts
        bins = np.clip((logit(probs) + _REACH) / _WIDTH, 0, len(CENTRES) - 1).astype(np.int64)
        shape = (int(parts.max()) + 1, len(CENTRES), 2)
        at = np.ravel_multi_index((parts, bins, present.astype(np.int64)), shape)
        self.counts = np.bincount(at, minlength=int(np.prod(shape))).reshape(shape)
        self._curves: dict[Excluded, Curve] = {}

    def curve(self, excluded: Excluded = frozenset()) -> Curve:
        """Return the curve fitted without some parts, of the kind that does best across them."""
        if excluded not in self._curves:
            kept = [part for part in range(len(self.counts)) if part not in excluded]
            self._curves[excluded] = fit(self.counts[kept])
        return self._curves[excluded]

    def outside(self) -> Float:
        """Return each image's probability (N,), calibrated on the parts that it is not in."""
        out = np.empty(len(self.probs))
        for part in range(len(self.counts)):
            rows = self.parts == part
            out[rows] = self.curve(frozenset({part}))(self.probs[rows])
        return out


def fit(counts: NDArray[np.int64]) -> Curve:
    """Fit counts (parts, bins, 2) of absent and present: as it is, by temperature, or isotonic.

    Guo et al., "On Calibration of Modern Neural Networks" (2017); Zadrozny and Elkan (2002). A
    kind with more freedom has to lose less on the half of the parts that it was not fitted on.
    """
    total = counts.sum(axis=0)
    if len(counts) < 2 or not total.sum(axis=0).all():
        return _as_it_is(total)
    halves = [counts[0::2].sum(axis=0), counts[1::2].sum(axis=0)]
    best, least = _as_it_is, np.inf
    for kind in (_as_it_is, _temperature, _isotonic):
        lost = _loss(kind(halves[0]).values, halves[1]) + _loss(kind(halves[1]).values, halves[0])
        if lost < least - 1e-9:
            best, least = kind, lost
    return best(total)


def expected_error(probs: NDArray[Any], present: NDArray[np.bool_]) -> float:
    """Return the expected calibration error of probabilities (N,), over 15 bins of equal count."""
    order = np.argsort(probs, kind="stable")
    gaps = [
        abs(float(np.sum(probs[rows] - present[rows])))
        for rows in np.array_split(order, min(_ECE_BINS, len(order)))
    ]
    return sum(gaps) / max(len(order), 1)


def area_under_curve(probs: NDArray[Any], present: NDArray[np.bool_]) -> float | None:
    """Return the chance that a present class has the higher probability; None without both."""
    yes, no = probs[present], np.sort(probs[~present])
    if not len(yes) or not len(no):
        return None
    below = np.searchsorted(no, yes, side="left") + np.searchsorted(no, yes, side="right")
    return float(below.mean() / (2 * len(no)))


def log_loss(probs: NDArray[Any], present: NDArray[np.bool_]) -> Float:
    """Return the log loss of each probability."""
    clipped = np.clip(np.asarray(probs, np.float64), _SURE, 1 - _SURE)
    return np.asarray(-np.log(np.where(present, clipped, 1 - clipped)))


def _as_it_is(counts: NDArray[np.int64]) -> Curve:
    del counts
    return Curve("as it is", sigmoid(CENTRES))


def _temperature(counts: NDArray[np.int64]) -> Curve:
    found = minimize_scalar(
        lambda log_t: _loss(sigmoid(CENTRES / np.exp(log_t)), counts),
        bounds=(-_LOG_T, _LOG_T),
        method="bounded",
    )
    temperature = float(np.exp(found.x))
    return Curve(f"temperature {temperature:.3g}", sigmoid(CENTRES / temperature))


def _isotonic(counts: NDArray[np.int64]) -> Curve:
    total = counts.sum(axis=1)
    seen = np.flatnonzero(total)
    fitted = isotonic_regression(counts[seen, 1] / total[seen], weights=total[seen]).x
    return Curve("isotonic", np.interp(CENTRES, CENTRES[seen], fitted))


def _loss(values: Float, counts: NDArray[np.int64]) -> float:
    clipped = np.clip(values, _SURE, 1 - _SURE)
    return float(-(counts[:, 1] @ np.log(clipped) + counts[:, 0] @ np.log(1 - clipped)))

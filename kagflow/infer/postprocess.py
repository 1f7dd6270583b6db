"""From probabilities to what is submitted: thresholds, minimum areas, the gate."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kagflow.errors import DataError


@dataclass(frozen=True)
class ClassRule:
    """Say when a class is predicted.

    A pixel (or, for labels, the image) counts from `threshold` on; a mask of fewer than `min_area`
    pixels in all, at the image's own size, is dropped; below `gate` the image-level probability
    vetoes the class; `empty` never predicts it.
    """

    threshold: float = 0.5
    min_area: int = 0
    gate: float = 0.0
    empty: bool = False

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> ClassRule:
        """Read a rule as ensembles and packs write it; unknown keys are refused."""
        known = {"threshold", "min_area", "gate", "empty"}
        if strange := set(values) - known:
            raise DataError(f"rule with unknown keys {sorted(strange)}; known: {sorted(known)}")
        return cls(**values)


def vetoed(labels: NDArray[np.float32] | None, rules: Sequence[ClassRule]) -> NDArray[np.bool_]:
    """Tell which classes are empty before any mask is seen: (C,) bool."""
    empty = np.array([rule.empty for rule in rules], bool)
    if labels is None:
        return empty
    return np.asarray(empty | (labels < np.array([rule.gate for rule in rules], np.float32)))


def apply(
    masks: NDArray[np.float32],
    labels: NDArray[np.float32] | None,
    rules: Sequence[ClassRule],
) -> NDArray[np.bool_]:
    """Turn mask probabilities (C, H, W) and label probabilities (C,) into masks (C, H, W) bool."""
    out = np.zeros(masks.shape, bool)
    for probs, mask, rule, veto in zip(masks, out, rules, vetoed(labels, rules), strict=True):
        if veto:
            continue
        np.greater_equal(probs, np.float32(rule.threshold), out=mask)
        if np.count_nonzero(mask) < rule.min_area:
            mask[:] = False
    return out


def apply_labels(
    labels: NDArray[np.float32], rules: Sequence[ClassRule], *, exclusive: bool
) -> list[int]:
    """Return the classes that image-level probabilities (C,) predict.

    `exclusive` takes the most probable class that is not ruled out, whatever its threshold.
    """
    allowed = [index for index, rule in enumerate(rules) if not rule.empty]
    if exclusive:
        return [max(allowed, key=lambda index: float(labels[index]))] if allowed else []
    return [index for index in allowed if labels[index] >= np.float32(rules[index].threshold)]

"""From probabilities to what is submitted: thresholds, minimum areas, the gate."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from functools import reduce
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from kagflow.errors import DataError

# Out-of-fold maps are kept in steps of 1/255, and nothing below four of them: a mean of logits that
# was tuned on such maps must not see more in a kernel.
FAINT, SURE = np.float32(4 / 255), np.float32(1 - 1 / 510)


@dataclass(frozen=True)
class ClassRule:
    """Say when a class is predicted.

    A pixel (or, for labels, the image) counts from `threshold` on. Areas are pixels at the image's
    own size: components (8 neighbours) of fewer than `min_component` are dropped, then the whole
    mask where fewer than `min_area` are left, or, with `seed`, where fewer than `min_area` pixels
    reach that higher threshold (SIIM-ACR's triplet). Below `gate` the image-level probability p
    vetoes the class; with `soft` above 1 it raises the minimum area instead, to
    min_area * (soft - (soft - 1) * p) (khornlund's steel-defect). `empty` never predicts it.
    """

    threshold: float = 0.5
    min_area: int = 0
    min_component: int = 0
    seed: float = 0.0
    gate: float = 0.0
    soft: float = 1.0
    empty: bool = False

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> ClassRule:
        """Read a rule as ensembles and packs write it; unknown keys are refused."""
        known = {field.name for field in fields(cls)}
        if strange := set(values) - known:
            raise DataError(
                f"rule with unknown keys {sorted(strange)}; known: {sorted(known)}",
                hint="make the ensemble anew",
            )
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
    veto = vetoed(labels, rules)
    for index, (probs, mask, rule) in enumerate(zip(masks, out, rules, strict=True)):
        if veto[index]:
            continue
        np.greater_equal(probs, np.float32(rule.threshold), out=mask)
        if rule.min_component > 1:
            drop_small(mask, rule.min_component)
        counted = probs >= np.float32(rule.seed) if rule.seed else mask
        area, growth = np.count_nonzero(counted), soft_growth(rule, labels, index)
        if area / growth < rule.min_area:
            mask[:] = False
    return out


def soft_growth(rule: ClassRule, labels: NDArray[np.float32] | None, index: int) -> float:
    """Return by how much the minimum area grows for what the gate says of the class."""
    if labels is None or rule.soft <= 1:
        return 1.0
    return rule.soft - (rule.soft - 1) * float(labels[index])


def drop_small(mask: NDArray[np.bool_], smallest: int) -> None:
    """Clear the components (8 neighbours) of a mask (H, W) that have fewer pixels, in place."""
    grey = mask.view(np.uint8)
    left, top, width, height = cv2.boundingRect(grey)
    if not width:
        return
    inside = np.ascontiguousarray(grey[top : top + height, left : left + width])
    _, labels, stats, _ = cv2.connectedComponentsWithStats(inside, connectivity=8)
    keep = stats[:, cv2.CC_STAT_AREA] >= smallest
    keep[0] = False
    mask[top : top + height, left : left + width] = keep[labels]


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


def mean_of(
    maps: Sequence[NDArray[np.float32]], shares: Sequence[float] = ()
) -> NDArray[np.float32]:
    """Add up what is weighted already, or, with `shares`, average logits of probabilities."""
    if not shares:
        return reduce(np.add, maps)
    parts = (log_odds(each) * np.float32(share) for each, share in zip(maps, shares, strict=True))
    return expit(reduce(np.add, parts))


def log_odds(probs: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return log(p / (1 - p)) as float32, for p from 4/255 to half a step of 1/255 below 1."""
    clipped = np.clip(probs, FAINT, SURE).astype(np.float32)
    return np.asarray(np.log(clipped / (1 - clipped)), np.float32)


def expit(logits: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return 1 / (1 + exp(-x)) as float32."""
    return np.asarray(1 / (1 + np.exp(-logits)), np.float32)

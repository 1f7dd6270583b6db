"""What out-of-fold predictions say, in counts: one pass over the maps, then any grid is cheap.

An image's map is reduced to the area above every threshold and to how much of it is true, from
two histograms a class. Thresholds are multiples of 1/256, exact in float32, so that a rule found
here picks the very pixels that `infer.postprocess` picks from the same map.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from kagflow.errors import DataError
from kagflow.learn.oof import OofReader
from kagflow.progress import QUIET, Progress
from kagflow.task import rle
from kagflow.task.spec import TaskSpec

LEVELS = 256
STEP = 8
THRESHOLDS: NDArray[np.float32] = np.arange(STEP, LEVELS, STEP, dtype=np.float32) / LEVELS
# cv2.calcHist counts in float32, exact up to here.
_EXACT = 2**24

Truth = Mapping[str, Mapping[int, str]]
Store = dict[str, OofReader]


@dataclass(frozen=True)
class Evidence:
    """Hold counts of N images, C classes and T thresholds.

    `true` (N, C), `predicted` and `intersection` (N, C, T) int64 are pixels, for classification 0
    or 1; `gate` (N, C) float32 is the label members' mean probability, None without any;
    `clusters` (N,) numbers the groups of near-duplicates; `pixels` is an image's usual size.
    """

    image_ids: tuple[str, ...]
    clusters: NDArray[np.int64]
    true: NDArray[np.int64]
    predicted: NDArray[np.int64]
    intersection: NDArray[np.int64]
    gate: NDArray[np.float32] | None
    pixels: int


def open_member(folds: Sequence[Path]) -> Store:
    """Return which store holds each image of a run, from its fold folders.

    Raises DataError where two folds predict the same image, or a store is missing or damaged.
    """
    store: Store = {}
    for folder in folds:
        reader = OofReader(folder / "oof")
        if twice := store.keys() & set(reader.image_ids):
            raise DataError(
                f"{folder} predicts {len(twice)} images that another fold of the run predicts",
                hint="The folds were changed between trainings: train them under another name=.",
            )
        store |= dict.fromkeys(reader.image_ids, reader)
    return store


def gather(
    members: Sequence[Store],
    truth: Truth,
    spec: TaskSpec,
    *,
    clusters: Mapping[str, int],
    progress: Progress | None = None,
) -> Evidence:
    """Average members of equal weight on the images that all of them predict, and count.

    Members that predict masks are averaged at the image's own size; those that predict labels
    make the gate, or, for classification, the prediction itself. Raises DataError where no image
    is predicted by all.
    """
    names = sorted(set.intersection(*(set(store) for store in members)) & set(clusters))
    if not names:
        raise DataError(
            "there is no image that all members predict out of fold",
            hint="Train the same folds of every run, or name the runs that share a fold.",
        )
    kinds = [_predicts(store) for store in members]
    masks = [store for store, kind in zip(members, kinds, strict=True) if kind == "mask"]
    labels = [store for store, kind in zip(members, kinds, strict=True) if kind == "label"]
    mean = np.array([_mean_label(labels, name) for name in names]) if labels else None
    true = np.array([_true(truth.get(name, {}), spec) for name in names], np.int64)
    if spec.kind == "classification":
        assert mean is not None
        predicted = _predicted_labels(mean, exclusive=spec.exclusive).astype(np.int64)
        both, mean, pixels = predicted * true[..., None], None, 1
    else:
        predicted, both = _count_all(masks, names, truth, progress or QUIET).swapaxes(0, 1)
        pixels = int(np.median([np.prod(masks[0][name].size(name)) for name in names]))
    numbers = np.array([clusters[name] for name in names], np.int64)
    return Evidence(tuple(names), numbers, true, predicted, both, mean, pixels)


def count_image(probs: NDArray[np.float32], truth: Mapping[int, str]) -> NDArray[np.int64]:
    """Count one image's mask probabilities (C, H, W): (2, C, T) areas and intersections."""
    scaled = np.minimum(probs * np.float32(LEVELS), LEVELS - 1).astype(np.uint8)
    out = np.zeros((2, len(probs), len(THRESHOLDS)), np.int64)
    for index, plane in enumerate(scaled):
        out[0, index] = _areas_above(plane, None)
        if index in truth:
            out[1, index] = _areas_above(plane, rle.decode(truth[index], *plane.shape))
    return out


def _areas_above(plane: NDArray[np.uint8], mask: NDArray[np.uint8] | None) -> NDArray[np.int64]:
    if plane.size < _EXACT:
        counts = cv2.calcHist([plane], [0], mask, [LEVELS], [0, LEVELS])[:, 0].astype(np.int64)
    else:
        chosen = plane.ravel() if mask is None else plane[mask > 0]
        counts = np.bincount(chosen, minlength=LEVELS)
    above: NDArray[np.int64] = counts[::-1].cumsum()[::-1][STEP::STEP]
    return above


def _count_all(
    masks: Sequence[Store], names: Sequence[str], truth: Truth, progress: Progress
) -> NDArray[np.int64]:
    counted = []
    progress.start("read out-of-fold masks", len(names), "images")
    with ThreadPoolExecutor(os.cpu_count() or 1) as pool:
        for one in pool.map(partial(_count_mean, masks, truth), names):
            counted.append(one)
            progress.advance()
    progress.finish()
    return np.array(counted)


def _count_mean(masks: Sequence[Store], truth: Truth, name: str) -> NDArray[np.int64]:
    total = masks[0][name].mask(name)
    for store in masks[1:]:
        total = total + store[name].mask(name)
    return count_image(total / np.float32(len(masks)), truth.get(name, {}))


def _mean_label(labels: Sequence[Store], name: str) -> NDArray[np.float32]:
    total: Any = sum(store[name].label(name) for store in labels)
    return np.asarray(total / np.float32(len(labels)), np.float32)


def _predicted_labels(mean: NDArray[np.float32], *, exclusive: bool) -> NDArray[np.bool_]:
    """Return (N, C, T); where exactly one class is true it is the first of the most probable."""
    if not exclusive:
        return np.asarray(mean[..., None] >= THRESHOLDS)
    best = np.arange(mean.shape[1]) == mean.argmax(axis=1)[:, None]
    return np.repeat(best[..., None], len(THRESHOLDS), axis=2)


def _predicts(store: Store) -> str:
    return next(iter(store.values())).predicts


def _true(found: Mapping[int, str], spec: TaskSpec) -> list[int]:
    masks = spec.kind == "segmentation"
    return [
        (rle.area(found[c]) if masks else 1) if c in found else 0 for c in range(len(spec.classes))
    ]

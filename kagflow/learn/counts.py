"""Count one probability map at every threshold and minimum area at once.

Thresholds are multiples of 1/256, exact in float32, so that a rule found here picks the very pixels
that `infer.postprocess` picks from the same map. A notebook labels the components again for every
cell of its grid; here each threshold is labelled once, inside the box where anything is above it,
and every minimum area is read off the areas that were found.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

LEVELS = 256
# The lowest threshold that is tried; what lies below it everywhere is never looked at.
FLOOR = 24
STEP = 8
THRESHOLDS: NDArray[np.float32] = np.arange(FLOOR, LEVELS, STEP, dtype=np.float32) / LEVELS
# Components are labelled anew at every threshold, so there are fewer: every second one.
COMPONENT_THRESHOLDS: NDArray[np.float32] = THRESHOLDS[1::2]
# Shares of an image, halving, from an eighth down.
_AREAS = 2.0 ** -np.arange(3, 16)
# cv2.calcHist counts in float32, exact up to here.
_EXACT = 2**24
# More islands than this are labelled together: a call for each would cost more.
_ISLANDS = 12

Plane = NDArray[np.uint8]
Box = tuple[slice, slice]


def area_grid(pixels: int) -> NDArray[np.int64]:
    """Return the minimum areas to try, in pixels, for images of `pixels`: 0 and up."""
    shares = np.rint(pixels * _AREAS).astype(np.int64)
    grid: NDArray[np.int64] = np.unique(np.append(shares, 0))
    return grid


def scaled(probs: NDArray[np.float32]) -> Plane:
    """Return floor(256 p) as uint8, in which p >= k/256 is >= k."""
    return np.minimum(probs * np.float32(LEVELS), LEVELS - 1).astype(np.uint8)


def box_of(plane: NDArray[Any], level: float) -> Box | None:
    """Return the rows and columns around all that reaches `level`, None where nothing does."""
    left, top, width, height = cv2.boundingRect((plane >= level).view(np.uint8))
    return (slice(top, top + height), slice(left, left + width)) if width else None


def totals(plane: Plane, truth: Plane | None, thresholds: NDArray[np.float32]) -> NDArray[np.int64]:
    """Count pixels above each threshold: rows predicted and intersection, (2, T) int64.

    `plane` (H, W) is as `scaled` makes it; `truth` (H, W) is 0 or 1, None where all is clean.
    """
    levels = np.rint(thresholds * LEVELS).astype(np.int64)
    out = np.zeros((2, len(levels)), np.int64)
    out[0] = _above(plane, None)[levels]
    if truth is not None:
        out[1] = _above(plane, truth)[levels]
    return out


def components(
    plane: Plane,
    truth: Plane | None,
    thresholds: NDArray[np.float32],
    areas: NDArray[np.int64],
) -> NDArray[np.int64]:
    """Count what is left once components below each minimum area are dropped: (2, T, A) int64.

    Components have 8 neighbours, as cv2's have; thresholds rise, and `areas` rise from 0. What is
    apart at the lowest threshold is apart at all of them, so a few islands are labelled each in
    its own small box.
    """
    levels = np.rint(thresholds * LEVELS).astype(np.int64)
    found: list[tuple[int, NDArray[Any], NDArray[Any]]] = []
    for island, true in _islands(plane, truth, int(levels[0])):
        found += _label_all(island, true, levels)
    out = np.zeros((2, len(levels), len(areas)), np.int64)
    if not found:
        return out
    sizes = np.concatenate([size for _, size, _ in found])
    at = np.repeat([at for at, _, _ in found], [len(size) for _, size, _ in found])
    bins = at * len(areas) + np.searchsorted(areas, sizes, side="right") - 1
    for row, weights in enumerate((sizes, np.concatenate([inside for *_, inside in found]))):
        table = np.bincount(bins, weights, minlength=out[row].size).reshape(out[row].shape)
        out[row] = np.rint(table[:, ::-1].cumsum(axis=1)[:, ::-1])
    return out


def _islands(plane: Plane, truth: Plane | None, level: int) -> Iterator[tuple[Plane, Plane | None]]:
    """Cut out what reaches a level, by component where there are few, else in one piece."""
    around = box_of(plane, level)
    if around is None:
        return
    plane, truth = plane[around], None if truth is None else truth[around]
    count, labels, stats = _labelled((plane >= level).view(np.uint8))
    if not 1 < count - 1 <= _ISLANDS:
        yield plane, truth
        return
    for number, (left, top, width, height, _) in enumerate(stats[1:].tolist(), 1):
        inside = slice(top, top + height), slice(left, left + width)
        alone = np.where(labels[inside] == number, plane[inside], np.uint8(0))
        yield alone, None if truth is None else truth[inside]


def _label_all(
    plane: Plane, truth: Plane | None, levels: NDArray[np.int64]
) -> list[tuple[int, NDArray[Any], NDArray[Any]]]:
    """Label a plane at rising levels: (number of the level, sizes, true pixels) of components."""
    found: list[tuple[int, NDArray[Any], NDArray[Any]]] = []
    before = -1
    for at, level in enumerate(levels.tolist()):
        mask = (plane >= level).view(np.uint8)
        area = cv2.countNonZero(mask)
        if not area:
            break
        if area == before:
            found.append((at, *found[-1][1:]))
            continue
        count, labels, stats = _labelled(mask)
        sizes = stats[1:, cv2.CC_STAT_AREA]
        inside = np.zeros(len(sizes), np.int64)
        if truth is not None:
            inside = np.bincount(labels[truth > 0], minlength=count)[1:]
        found.append((at, sizes, inside))
        before = area
    return found


def _labelled(mask: Plane) -> tuple[int, NDArray[Any], NDArray[Any]]:
    """Return count, labels and stats of components; 16 bits where all their numbers fit."""
    height, width = mask.shape
    kind = cv2.CV_16U if ((height + 1) // 2) * ((width + 1) // 2) < 2**16 else cv2.CV_32S
    count, labels, stats, _ = cv2.connectedComponentsWithStats(mask, connectivity=8, ltype=kind)
    return count, labels, stats


def _above(plane: Plane, mask: Plane | None) -> NDArray[np.int64]:
    """Count the pixels at or above each of the 256 levels, where `mask` is set."""
    if plane.size < _EXACT:
        counts = cv2.calcHist([plane], [0], mask, [LEVELS], [0, LEVELS])[:, 0].astype(np.int64)
    else:
        chosen = plane.ravel() if mask is None else plane[mask > 0]
        counts = np.bincount(chosen, minlength=LEVELS)
    above: NDArray[np.int64] = counts[::-1].cumsum()[::-1]
    return above

"""Search thresholds and areas on 500 out-of-fold images, beside the notebook's double loop.

Both start from the same stored maps (uint8, 256x1600, 4 classes) and end with the same table of
Dice over the same grid. The notebook goes through the grid cell by cell and makes every mask anew;
it is timed on a sample of the maps and multiplied, since all of them would take minutes.
"""

from __future__ import annotations

import time
from collections.abc import Callable

import cv2
import numpy as np
import oof_world

from kagflow.learn import counts
from kagflow.task.metric import dice

IMAGES, REPEATS = 500, 5
THRESHOLDS = np.array([24, 40, 64, 88, 104, 128, 152, 176, 200, 224, 240], np.float32) / 256
AREAS = np.array([0, 100, 200, 400, 600, 1000, 1500, 2000, 3000, 5000])
# A grid that the notebook can finish on maps of thousands of specks.
FEW_THRESHOLDS, FEW_AREAS = THRESHOLDS[[3, 5]], AREAS[[0, 3]]
# Of every so many images one is timed with the notebook: all its four classes.
SAMPLED = 25

Pair = tuple[np.ndarray, np.ndarray]
GRID = THRESHOLDS, AREAS


def stored(images: int) -> list[Pair]:
    """Return maps as the store gives them, and their truth: (H, W) uint8 both, 4 an image."""
    kinds = [_kind(number) for number in range(min(images, oof_world.KINDS))]
    return [pair for number in range(images) for pair in kinds[number % len(kinds)]]


def ours(pairs: list[Pair], rule: str, grid: tuple = GRID) -> np.ndarray:
    """Return the summed Dice of every cell (T, A) from one look at each map."""
    thresholds, areas = grid
    total = np.zeros((len(thresholds), len(areas)))
    clean = 0
    for plane, truth in pairs:
        true = int(np.count_nonzero(truth))
        box = counts.box_of(plane, counts.FLOOR)
        if box is None:
            clean += not true
            continue
        inside = counts.scaled(plane[box] / np.float32(255))
        there = truth[box] if true else None
        if rule == "component":
            predicted, both = counts.components(inside, there, thresholds, areas)
        else:
            above, hit = counts.totals(inside, there, thresholds)
            keep = above[:, None] >= areas
            predicted, both = above[:, None] * keep, hit[:, None] * keep
        total += dice(both, predicted, true)
    return total + clean


def notebook(pairs: list[Pair], rule: str, grid: tuple = GRID) -> np.ndarray:
    """Return the same from the usual double loop."""
    thresholds, areas = grid
    total = np.zeros((len(thresholds), len(areas)))
    for plane, truth in pairs:
        probability = plane / np.float32(255)
        for at, threshold in enumerate(thresholds):
            for column, area in enumerate(areas):
                mask = post_process(probability, threshold, area, rule)
                total[at, column] += _dice(mask, truth)
    return total


def post_process(probability: np.ndarray, threshold: float, min_size: int, rule: str) -> np.ndarray:
    """Threshold a map and drop what is small, as public kernels have done since 2019."""
    mask = (probability >= threshold).astype(np.uint8)
    if rule == "total":
        return mask if mask.sum() >= min_size else np.zeros_like(mask)
    number, component = cv2.connectedComponents(mask)
    predictions = np.zeros_like(mask)
    for c in range(1, number):
        p = component == c
        if p.sum() >= min_size:
            predictions[p] = 1
    return predictions


def pairs(rule: str) -> list[tuple[float, float]]:
    """Time both in turn: seconds for all 500 images, the notebook's by multiplication.

    Raises AssertionError where the answers differ on what both have done, or are empty.
    """
    whole = stored(IMAGES)
    sample = [whole[at + c] for at in range(0, len(whole), 4 * SAMPLED) for c in range(4)]
    assert sum(plane.max() > 128 and truth.any() for plane, truth in sample) > len(sample) / 20
    mine, theirs = ours(sample, rule), notebook(sample, rule)
    np.testing.assert_allclose(mine, theirs)
    assert mine.argmax() == theirs.argmax()
    more = len(whole) / len(sample)
    return [
        (_seconds(lambda: ours(whole, rule)), more * _seconds(lambda: notebook(sample, rule)))
        for _ in range(REPEATS)
    ]


def noisy_pairs(kind: str) -> list[tuple[float, float]]:
    """Time both on a map of which no part is empty: `dense` is smooth, `salt` is noise."""
    rng, grid = np.random.default_rng(0), (FEW_THRESHOLDS, FEW_AREAS)
    noise = rng.random((oof_world.HEIGHT, oof_world.WIDTH), np.float32)
    if kind == "dense":
        noise = cv2.normalize(cv2.GaussianBlur(noise, (0, 0), 8), None, 0, 1, cv2.NORM_MINMAX)
    else:
        # One pixel of a hundred is lit, most of them alone.
        noise = np.where(noise > 0.99, rng.random(noise.shape), 0.1)
    maps = [(np.rint(noise * 255).astype(np.uint8), oof_world.shape(rng))]
    np.testing.assert_allclose(ours(maps, "component", grid), notebook(maps, "component", grid))
    return [
        (
            _seconds(lambda: ours(maps, "component", grid)),
            _seconds(lambda: notebook(maps, "component", grid)),
        )
        for _ in range(REPEATS)
    ]


def _kind(number: int) -> list[Pair]:
    true, probs = oof_world.masks_of(number), oof_world.maps_of.__wrapped__(number, 0)
    quantised = np.rint(probs * 255).astype(np.uint8)
    # As the store does: the haze is not kept.
    quantised[quantised < 4] = 0
    empty = np.zeros(probs.shape[1:], np.uint8)
    return [(plane, true.get(index, empty)) for index, plane in enumerate(quantised)]


def _dice(mask: np.ndarray, truth: np.ndarray) -> float:
    """Score one mask; 1 where both are empty."""
    whole = mask.sum() + truth.sum()
    return 1.0 if whole == 0 else 2.0 * (mask & truth).sum() / whole


def _seconds(job: Callable[[], object]) -> float:
    began = time.perf_counter()
    job()
    return time.perf_counter() - began


if __name__ == "__main__":
    for rule in ("total", "component"):
        print(rule, [f"{two / one:.0f}x" for one, two in pairs(rule)])
    for kind in ("dense", "salt"):
        print(kind, [f"{two / one:.1f}x" for one, two in noisy_pairs(kind)])

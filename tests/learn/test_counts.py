from __future__ import annotations

import cv2
import numpy as np
import pytest

from kagflow.learn import counts

THRESHOLDS = np.array([24, 60, 100, 128, 200, 248], np.float32) / 256
AREAS = np.array([0, 1, 2, 5, 20, 100])


def naive(probs, truth, thresholds, areas):
    """The notebook's double loop, one component at a time."""
    out = np.zeros((2, len(thresholds), len(areas)), np.int64)
    for at, threshold in enumerate(thresholds):
        for column, area in enumerate(areas):
            mask = (probs >= threshold).astype(np.uint8)
            count, labels = cv2.connectedComponents(mask, connectivity=8)
            kept = np.zeros(mask.shape, bool)
            for number in range(1, count):
                piece = labels == number
                if piece.sum() >= area:
                    kept |= piece
            out[0, at, column] = kept.sum()
            out[1, at, column] = (kept & (truth > 0)).sum()
    return out


def maps():
    rng = np.random.default_rng(0)
    noise = rng.random((40, 60)).astype(np.float32)
    blobs = np.zeros((40, 60), np.float32)
    for row, column, size, peak in ((5, 5, 6, 0.9), (20, 30, 9, 0.6), (33, 50, 4, 0.99)):
        blobs[row : row + size, column : column + size] = peak
    many = np.zeros((40, 60), np.float32)
    many[::3, ::3] = rng.random((14, 20))
    yield "noise", noise
    yield "smooth", cv2.GaussianBlur(noise, (0, 0), 3) * 1.2 - 0.1
    yield "blobs", cv2.GaussianBlur(blobs, (0, 0), 1)
    yield "many", many
    yield "nothing", np.full((40, 60), 0.05, np.float32)
    yield "all", np.full((40, 60), 0.97, np.float32)
    yield "corner", np.pad(np.ones((1, 1), np.float32), ((39, 0), (0, 59)))


@pytest.mark.parametrize(("name", "probs"), list(maps()), ids=[name for name, _ in maps()])
@pytest.mark.parametrize("there", [True, False])
def test_one_pass_counts_what_the_double_loop_counts(name, probs, there):
    probs = np.clip(probs, 0, 1)
    truth = np.zeros(probs.shape, np.uint8)
    if there:
        truth[8:30, 10:40] = 1
    plane = counts.scaled(probs)
    wanted = naive(probs, truth, THRESHOLDS, AREAS)
    given = truth if there else None
    assert np.array_equal(counts.components(plane, given, THRESHOLDS, AREAS), wanted)
    assert np.array_equal(counts.totals(plane, given, THRESHOLDS), wanted[:, :, 0])


def test_thresholds_are_exact():
    edges = np.array([[0, 0.5, 128 / 256, np.nextafter(np.float32(0.5), 0), 1.0]], np.float32)
    at = int(np.flatnonzero(counts.THRESHOLDS == 0.5)[0])
    assert counts.totals(counts.scaled(edges), None, counts.THRESHOLDS)[0, at] == 3


def test_a_box_holds_all_that_reaches_the_level():
    plane = np.zeros((9, 12), np.uint8)
    plane[2, 3], plane[6, 10] = 24, 200
    assert counts.box_of(plane, 24) == (slice(2, 7), slice(3, 11))
    assert counts.box_of(plane, 25) == (slice(6, 7), slice(10, 11))
    assert counts.box_of(plane, 201) is None


def test_big_images_are_counted_exactly(monkeypatch):
    rng = np.random.default_rng(0)
    plane = rng.integers(0, 256, (50, 60), np.uint8)
    truth = (rng.random((50, 60)) < 0.3).astype(np.uint8)
    usual = counts.totals(plane, truth, counts.THRESHOLDS)
    monkeypatch.setattr(counts, "_EXACT", 0)
    assert np.array_equal(counts.totals(plane, truth, counts.THRESHOLDS), usual)


def test_areas_fit_the_image():
    grid = counts.area_grid(256 * 1024)
    assert grid[0] == 0
    assert (grid[1], grid[-1]) == (8, 32768)
    assert counts.area_grid(1).tolist() == [0]

from __future__ import annotations

import re

import cv2
import numpy as np

from kagflow.report import contours


def filled(path, shape):
    """Fill a path of relative lines with a second implementation of what it means."""
    out = np.zeros(shape, np.uint8)
    polygons = []
    for part in re.findall(r"M([\d ]+)l([-\d ]+)z", path):
        start, steps = (np.array(numbers.split(), int).reshape(-1, 2) for numbers in part)
        polygons.append(np.cumsum(np.vstack([start, steps]), axis=0).astype(np.int32))
    cv2.fillPoly(out, polygons, 1)
    return out


def test_a_path_goes_around_its_mask():
    mask = np.zeros((40, 60), bool)
    mask[5:20, 10:30] = True
    mask[30:33, 50:58] = True
    found = contours.outline(mask)
    assert found.left_out == 0
    assert found.top == (10, 5)
    assert np.array_equal(filled(found.path, mask.shape), mask)


def test_a_hole_is_traced_and_nothing_is_none():
    mask = np.zeros((40, 40), np.uint8)
    mask[5:35, 5:35] = 1
    mask[15:25, 15:25] = 0
    assert contours.outline(mask).path.count("M") == 2
    assert contours.outline(np.zeros((4, 4), bool)) is None


def test_a_single_pixel_and_a_line_can_be_seen():
    mask = np.zeros((9, 9), bool)
    mask[4, 4] = True
    assert contours.outline(mask).path == "M4 4l0 0z"
    mask[4, 2:7] = True
    assert "l" in contours.outline(mask).path


def test_noise_is_traced_coarsely_and_in_part():
    mask = np.random.default_rng(0).random((256, 800)) < 0.3
    found = contours.outline(mask)
    assert len(found.path) <= contours.LETTERS
    assert found.left_out > 0


def test_drawing_leaves_the_image_and_marks_the_mask_with_its_name():
    image = np.full((100, 200), 90, np.uint8)
    mask = np.zeros_like(image)
    mask[40:60, 50:90] = 1
    drawn = contours.draw(image, [mask], ["7"])
    assert (image == 90).all()
    blue, green, red = drawn[40, 70].tolist()
    assert red > green > blue
    assert (drawn[50, 70] == 90).all()
    assert (drawn[20:38, 45:75] != 90).any()
    assert not np.array_equal(contours.draw(image, [], ["a"]), contours.draw(image, [], []))

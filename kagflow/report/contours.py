"""Outlines of masks: as SVG paths over a picture, and drawn into one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

# Blue against orange is told apart by nearly everybody; both are seen on grey.
TRUTH, PREDICTION = "#35c9ff", "#ff9d2e"
LETTERS = 6_000
SPECKS = 400

Points = NDArray[np.int32]
Mask = NDArray[Any]


@dataclass(frozen=True)
class Outline:
    """Hold the path of a mask in its own pixels, and how many specks were left out of it.

    `top` is the leftmost point of the uppermost row (x, y), where a label can stand.
    """

    path: str
    left_out: int
    top: tuple[int, int]


def outline(mask: Mask, *, step: float = 1.0) -> Outline | None:
    """Trace a mask (H, W), non-zero where set; None where it is empty.

    `step` is the pixel length that cannot be told apart where it is shown. A mask of more detail
    than `LETTERS` letters is traced more coarsely, and of more than `SPECKS` parts the largest.
    """
    parts = _trace(mask)
    if not parts:
        return None
    kept, tolerance = parts[:SPECKS], step / 2
    path = _path(kept, tolerance)
    while len(path) > LETTERS and tolerance < max(mask.shape):
        tolerance *= 2
        path = _path(kept, tolerance)
    ys, xs = np.nonzero(mask)
    return Outline(path, len(parts) - len(kept), (int(xs[0]), int(ys[0])))


def draw(image: NDArray[np.uint8], masks: Sequence[Mask], names: Sequence[str]) -> Mask:
    """Draw predicted masks (H, W) and their classes' names into a copy of a grey image.

    A name without a mask is written into the corner. Returns (H, W, 3) uint8, blue first.
    """
    out = cv2.cvtColor(image, cv2.COLOR_GRAY2BGR)
    if not masks:
        _write(out, " ".join(names), (0, 0))
    for mask, name in zip(masks, names, strict=False):
        cv2.drawContours(out, _trace(mask), -1, _blue_first(PREDICTION), _thickness(out))
        ys, xs = np.nonzero(mask)
        if len(xs):
            _write(out, name, (int(xs[0]), int(ys[0])))
    return np.asarray(out, np.uint8)


def _write(image: Mask, text: str, above: tuple[int, int]) -> None:
    """Write text above a point, or as near to it as it fits."""
    scale, font = max(min(image.shape[:2]) / 500, 0.4), cv2.FONT_HERSHEY_SIMPLEX
    (wide, high), _ = cv2.getTextSize(text, font, scale, 1)
    x = max(min(above[0], image.shape[1] - wide - 2), 0)
    at = (x, max(above[1] - 3, high + 2))
    thin = _thickness(image)
    cv2.putText(image, text, at, font, scale, (0, 0, 0), thin + 3, cv2.LINE_AA)
    cv2.putText(image, text, at, font, scale, _blue_first(PREDICTION), thin, cv2.LINE_AA)


def _thickness(image: Mask) -> int:
    return max(min(image.shape[:2]) // 400, 1)


def _trace(mask: Mask) -> list[Points]:
    """Return the outlines of a mask's parts and holes, longest first."""
    grey = np.ascontiguousarray(np.asarray(mask) != 0).view(np.uint8)
    found, _ = cv2.findContours(grey, cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE)
    return sorted((np.asarray(one, np.int32) for one in found), key=len, reverse=True)


def _path(parts: Sequence[Points], tolerance: float) -> str:
    return "".join(_closed(cv2.approxPolyDP(part, tolerance, closed=True)) for part in parts)


def _closed(points: Points) -> str:
    flat = points.reshape(-1, 2)
    steps = np.diff(flat, axis=0)
    lines = " ".join(f"{x} {y}" for x, y in steps.tolist())
    # A single pixel is a line of no length, which a round cap still shows.
    return f"M{flat[0, 0]} {flat[0, 1]}l{lines or '0 0'}z"


def _blue_first(colour: str) -> tuple[int, int, int]:
    red, green, blue = (int(colour[at : at + 2], 16) for at in (1, 3, 5))
    return blue, green, red

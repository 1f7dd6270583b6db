"""Describe an image by a few numbers that tell lighting, contrast and texture."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from kagflow.infer.image import read_grey
from kagflow.task.index import ImageRow, perceptual_hash

Float = NDArray[np.float64]
_TAILS = (1, 5, 25, 50, 75, 95, 99)
# Each scale halves the image: dust, scratches, stains.
_SCALES = ("fine", "middle", "coarse")
_DARK, _BRIGHT = 8, 247
NAMES = (
    "height",
    "width",
    *(f"grey at {share} %" for share in _TAILS),
    "brightness",
    "contrast",
    "black share",
    "white share",
    "change across columns",
    "change across rows",
    *(f"{scale} {what}" for scale in _SCALES for what in ("edges in x", "edges in y", "detail")),
)


def describe_file(file: Path) -> tuple[ImageRow, Float]:
    """Read an image file: its size and perceptual hash, and its features."""
    grey = read_grey(file)
    height, width = grey.shape
    return ImageRow(file.name, height, width, perceptual_hash(grey)), describe(grey)


def describe(grey: NDArray[np.uint8]) -> Float:
    """Return the features of an image (H, W), in the order of NAMES; some as log(1 + x)."""
    plane = grey.astype(np.float32)
    found = [
        *np.log1p(grey.shape),
        *np.percentile(grey, _TAILS),
        plane.mean(),
        plane.std(),
        (grey < _DARK).mean(),
        (grey > _BRIGHT).mean(),
        np.log1p(plane.mean(axis=0).std()),
        np.log1p(plane.mean(axis=1).std()),
    ]
    for _ in _SCALES:
        found += [np.log1p(value) for value in _texture(plane)]
        size = (max(1, plane.shape[1] // 2), max(1, plane.shape[0] // 2))
        plane = np.asarray(cv2.resize(plane, size, interpolation=cv2.INTER_AREA), np.float32)
    return np.array(found, np.float64)


def _texture(plane: NDArray[np.float32]) -> tuple[float, float, float]:
    across = np.abs(np.diff(plane, axis=1)).mean() if plane.shape[1] > 1 else 0.0
    down = np.abs(np.diff(plane, axis=0)).mean() if plane.shape[0] > 1 else 0.0
    return float(across), float(down), float(cv2.Laplacian(plane, cv2.CV_32F).std())

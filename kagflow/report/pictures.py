"""Pictures inside the page: as small as they may be, as large as they are of use."""

from __future__ import annotations

import base64
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

LONGEST = 1536
# Tried in turn until a picture fits: (WebP quality, share of the side).
STEPS = ((80, 1.0), (65, 1.0), (50, 1.0), (50, 0.75), (40, 0.6), (35, 0.45), (30, 0.3), (20, 0.2))


@dataclass(frozen=True)
class Picture:
    """Hold a data URI, and the image's own size in pixels, in which contours are counted."""

    uri: str
    width: int
    height: int


def read_picture(file: Path, *, most: int) -> Picture | None:
    """Return an image as WebP of at most `most` bytes of text; None where it cannot be read."""
    data = np.fromfile(file, np.uint8) if file.is_file() else np.zeros(0, np.uint8)
    image = cv2.imdecode(data, cv2.IMREAD_COLOR) if data.size else None
    if image is None:
        return None
    height, width = image.shape[:2]
    return Picture(_uri(np.asarray(image, np.uint8), most), width, height)


def _uri(image: NDArray[np.uint8], most: int) -> str:
    encoded = b""
    for quality, share in STEPS:
        small = _shrunk(image, share * min(1.0, LONGEST / max(image.shape[:2])))
        encoded = cv2.imencode(".webp", small, [cv2.IMWRITE_WEBP_QUALITY, quality])[1].tobytes()
        if len(encoded) * 4 / 3 + 40 <= most:
            break
    return "data:image/webp;base64," + base64.b64encode(encoded).decode()


def _shrunk(image: NDArray[np.uint8], share: float) -> Any:
    if share >= 1:
        return image
    size = [max(round(side * share), 1) for side in (image.shape[1], image.shape[0])]
    return cv2.resize(image, size, interpolation=cv2.INTER_AREA)

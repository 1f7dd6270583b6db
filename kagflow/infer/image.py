"""Images in and probability maps out: read, resize, normalise."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from kagflow.errors import DataError, UsageError

if TYPE_CHECKING:
    from torch import Tensor

INPUTS = {"grey": "kagflow.infer.image:Grey"}

Grey8 = NDArray[np.uint8]
Float = NDArray[np.float32]


def read_grey(path: Path) -> Grey8:
    """Read any image file as grey: (H, W) uint8.

    The same decoding as the image index, so that sizes agree; a file cut short gives what is there.
    Raises DataError where the file cannot be read or is no image.
    """
    try:
        data = np.fromfile(path, np.uint8)
    except OSError as error:
        raise DataError(f"{path}: {error.strerror or error}") from None
    image = cv2.imdecode(data, cv2.IMREAD_GRAYSCALE) if data.size else None
    if image is None:
        raise DataError(
            f"{path}: {data.size} bytes that are no readable image",
            hint="fetch the file again, or look at it with an image viewer",
        )
    return np.asarray(image, np.uint8)


def resize(image: Grey8, size: tuple[int, int] | None) -> Grey8:
    """Resize (H, W) uint8 to `size` = (h, w); None keeps it.

    Shrinking averages areas, so that thin scratches do not fall between samples.
    """
    if size is None or image.shape == tuple(size):
        return image
    shrinks = size[0] <= image.shape[0] and size[1] <= image.shape[1]
    how = cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
    return np.asarray(cv2.resize(image, (size[1], size[0]), interpolation=how), np.uint8)


def resize_probs(probs: Float, size: tuple[int, int]) -> Float:
    """Resize (C, h, w) float32 probabilities to (C, H, W) bilinearly, pixel centres aligned."""
    if probs.shape[1:] == tuple(size):
        return probs
    out = np.empty((probs.shape[0], *size), np.float32)
    for source, target in zip(probs, out, strict=True):
        cv2.resize(source, (size[1], size[0]), dst=target, interpolation=cv2.INTER_LINEAR)
    return out


class Affine(NamedTuple):
    """What an input may declare as its `affine`: it does no more than x * scale - shift, float32.

    Each of `channels` gets the same. Such an input's images travel to the device as bytes, a
    quarter of the way, and become floats there, with the very bits that the input gives.
    """

    scale: float
    shift: float
    channels: int = 1

    def on_host(self, image: Grey8) -> Float:
        """Return (channels, H, W) float32 of (H, W) uint8."""
        scaled = image.astype(np.float32)
        scaled *= self.scale
        scaled -= self.shift
        return np.repeat(scaled[None], self.channels, axis=0)

    def on_device(self, images: Tensor) -> Tensor:
        """Return (N, channels, H, W) float32 of (N, H, W) uint8, where it lies."""
        # Two operations, not one fused: each rounds as numpy does.
        scaled = images.float().mul_(self.scale).sub_(self.shift)
        return scaled[:, None].expand(-1, self.channels, -1, -1)


def affine_of(make_input: Any) -> Affine | None:
    """Return what an input declares itself to be, None for one that declares nothing.

    Raises UsageError for one that computes something else.
    """
    declared: Affine | None = getattr(make_input, "affine", None)
    if declared is not None:
        ramp = np.arange(256, dtype=np.uint8).reshape(16, 16)
        if not np.array_equal(make_input(ramp, {}), declared.on_host(ramp)):
            raise UsageError(
                f"input {type(make_input).__name__} computes something else than its {declared}",
                hint="correct its `affine`, or take it away",
            )
    return declared


@dataclass(frozen=True)
class Grey:
    """Turn (H, W) uint8 into (channels, H, W) float32: (x / 255 - mean) / std.

    The default mean and std are the averages over ImageNet's three channels, so that pretrained
    encoders see what they were trained on.
    """

    mean: float = 0.449
    std: float = 0.226
    channels: int = 1

    @property
    def affine(self) -> Affine:
        """All that this input does."""
        return Affine(1 / (255 * self.std), self.mean / self.std, self.channels)

    def __call__(self, image: Grey8, metadata: Mapping[str, Any]) -> Float:
        """Return the input of one image; `metadata` is not used."""
        del metadata
        return self.affine.on_host(image)

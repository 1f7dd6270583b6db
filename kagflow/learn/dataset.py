"""One training sample: crop first, then augment, then the input seam."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.utils.data import Dataset

from kagflow.learn import augment
from kagflow.learn.cache import Cache, Pixels
from kagflow.learn.sampler import Draw, Labels

Input = Callable[[Pixels, dict[str, Any]], npt.NDArray[np.float32]]
Sample = dict[str, Tensor]


@dataclass(frozen=True)
class Steps:
    """What happens to an image on its way to the model.

    `masks` is whether the sample carries a mask target; `crop` is (h, w) in pixels or None;
    `assets` are the files that the input may read.
    """

    crop: tuple[int, int] | None
    compose: Any
    make_input: Input
    masks: bool
    assets: Mapping[str, Path] = field(default_factory=dict)


class Samples(Dataset[Sample]):
    """Make the sample that a `Draw` names: the same for the same draw, in any process.

    A sample is `image` `(C, h, w)` float32, `label` `(K,)` float32 and, where asked for, `mask`
    `(K, h, w)` uint8. A crop's labels are those of the classes seen in it.
    """

    def __init__(
        self, cache: Cache, rows: npt.NDArray[np.int64], labels: Labels, steps: Steps
    ) -> None:
        self.cache = cache
        self.rows = rows
        self.labels = labels
        self.steps = steps

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, draw: Draw) -> Sample:
        row = int(self.rows[draw.image])
        image, mask = self.pixels(row, draw)
        height, width = self.cache.own_size(row)
        metadata = {
            "image_id": self.cache.ids[row],
            "height": height,
            "width": width,
            "assets": self.steps.assets,
        }
        sample = {"image": torch.from_numpy(self.steps.make_input(image, metadata))}
        label = self.labels[draw.image].astype(np.float32)
        if mask is not None:
            channels = to_channels(mask, self.cache.classes)
            if self.steps.crop is not None:
                label = channels.any(axis=(1, 2)).astype(np.float32)
            if self.steps.masks:
                sample["mask"] = torch.from_numpy(channels)
        sample["label"] = torch.from_numpy(label)
        return sample

    def pixels(self, row: int, draw: Draw) -> tuple[Pixels, Pixels | None]:
        """Return the cropped and augmented image and mask, uint8, as the input gets them."""
        image = self.cache.image(row)
        wanted = self.steps.masks or (self.steps.crop is not None and self.cache.masks.size > 0)
        mask = self.cache.mask(row) if wanted else None
        if self.steps.crop is not None:
            rng = np.random.default_rng(draw.seed)
            image, mask = crop(image, mask, self.steps.crop, rng=rng, centred=draw.centred)
        return augment.apply(self.steps.compose, image, mask, seed=draw.seed)


def to_channels(mask: Pixels, classes: int) -> Pixels:
    """Return `(K, h, w)` of 0 and 1 from a label map `(h, w)` or channels `(h, w, K)`."""
    if mask.ndim == 3:
        return np.ascontiguousarray(mask.transpose(2, 0, 1))
    numbers = np.arange(1, classes + 1, dtype=np.uint8)[:, None, None]
    return np.asarray(mask[None] == numbers, np.uint8)


def crop(
    image: Pixels,
    mask: Pixels | None,
    size: tuple[int, int],
    *,
    rng: np.random.Generator,
    centred: bool,
) -> tuple[Pixels, Pixels | None]:
    """Cut `size` = (h, w) at random, or around a random pixel of a random class of the mask.

    What is smaller is reflected at its borders first.
    """
    image, mask = _grow(image, size), None if mask is None else _grow(mask, size)
    free = (image.shape[0] - size[0], image.shape[1] - size[1])
    corner = tuple(int(rng.integers(0, room + 1)) for room in free)
    if centred and mask is not None and (pixel := _defect_pixel(mask, rng)) is not None:
        # The pixel lies anywhere in the crop, so that defects are not always seen in the middle.
        offset = (int(rng.integers(0, size[0])), int(rng.integers(0, size[1])))
        corner = tuple(
            min(max(at - shift, 0), room)
            for at, shift, room in zip(pixel, offset, free, strict=True)
        )
    window = np.s_[corner[0] : corner[0] + size[0], corner[1] : corner[1] + size[1]]
    return image[window], None if mask is None else mask[window]


def _defect_pixel(mask: Pixels, rng: np.random.Generator) -> tuple[int, int] | None:
    plane = mask
    if mask.ndim == 3:
        present = np.flatnonzero(mask.any(axis=(0, 1)))
        plane = mask[..., rng.choice(present)] if len(present) else mask[..., 0]
    elif len(present := np.flatnonzero(np.bincount(mask.ravel(), minlength=1)[1:])) > 1:
        plane = (mask == 1 + rng.choice(present)).view(np.uint8)
    pixels = np.flatnonzero(plane)
    if not len(pixels):
        return None
    row, column = divmod(int(rng.choice(pixels)), mask.shape[1])
    return row, column


def _grow(pixels: Pixels, size: tuple[int, int]) -> Pixels:
    down, right = max(0, size[0] - pixels.shape[0]), max(0, size[1] - pixels.shape[1])
    if not down and not right:
        return pixels
    grown = cv2.copyMakeBorder(
        pixels, down // 2, down - down // 2, right // 2, right - right // 2, cv2.BORDER_REFLECT
    )
    return np.asarray(grown, np.uint8).reshape(*grown.shape[:2], *pixels.shape[2:])

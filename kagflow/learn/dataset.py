"""Training samples: crop first, then augment, then the input seam.

A batch travels to its device as bytes as far as it can: an affine input's images as they are, the
masks of classes that do not overlap as one map. There it becomes floats.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.utils.data import Dataset

from kagflow.errors import UsageError
from kagflow.infer.image import affine_of
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
        self.affine = affine_of(steps.make_input)

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, draw: Draw) -> Sample:
        image, mask = self.pixels(int(self.rows[draw.image]), draw)
        sample = {"image": torch.from_numpy(self._input(draw, image))}
        if self.steps.masks:
            assert mask is not None
            sample["mask"] = torch.from_numpy(to_channels(mask, self.cache.classes))
        sample["label"] = torch.from_numpy(self._label(draw, mask))
        return sample

    def batch(self, draws: Sequence[Draw]) -> Sample:
        """Return what `finish` makes a batch of: in place of `image` and `mask` there may be bytes.

        `pixels` `(N, h, w)` are uint8 images for an affine input, `map` `(N, h, w)` uint8 is class
        + 1 or 0. Raises UsageError for images of unequal sizes.
        """
        pairs = [self.pixels(int(self.rows[draw.image]), draw) for draw in draws]
        images, masks = [image for image, _ in pairs], [mask for _, mask in pairs]
        labels = [self._label(draw, mask) for draw, mask in zip(draws, masks, strict=True)]
        batch = {"label": _stack(labels)}
        if self.affine is not None:
            batch["pixels"] = _stack(images)
        else:
            made = [self._input(draw, one) for draw, one in zip(draws, images, strict=True)]
            batch["image"] = _stack(made)
        if self.steps.masks:
            known = [mask for mask in masks if mask is not None]
            if all(mask.ndim == 2 for mask in known):
                batch["map"] = _stack(known)
            else:
                batch["mask"] = _stack([to_channels(one, self.cache.classes) for one in known])
        return batch

    def finish(self, batch: Sample) -> Sample:
        """Return `image` `(N, C, h, w)`, `mask` `(N, K, h, w)` and `label` `(N, K)` of a `batch`.

        All is computed where the batch lies, with the bits of the single samples.
        """
        done = dict(batch)
        if "pixels" in done:
            assert self.affine is not None
            done["image"] = self.affine.on_device(done.pop("pixels"))
        if "map" in done:
            done["mask"] = planes(done.pop("map"), self.cache.classes)
        return done

    def pixels(self, row: int, draw: Draw) -> tuple[Pixels, Pixels | None]:
        """Return the cropped and augmented image and mask, uint8, as the input gets them."""
        image = self.cache.image(row)
        wanted = self.steps.masks or (self.steps.crop is not None and self.cache.masks.size > 0)
        mask = self.cache.mask(row) if wanted else None
        if self.steps.crop is not None:
            rng = np.random.default_rng(draw.seed)
            image, mask = crop(image, mask, self.steps.crop, rng=rng, centred=draw.centred)
        return augment.apply(self.steps.compose, image, mask, seed=draw.seed)

    def _input(self, draw: Draw, image: Pixels) -> npt.NDArray[np.float32]:
        row = int(self.rows[draw.image])
        height, width = self.cache.own_size(row)
        metadata = {
            "image_id": self.cache.ids[row],
            "height": height,
            "width": width,
            "assets": self.steps.assets,
        }
        made: npt.NDArray[np.float32] = self.steps.make_input(image, metadata)
        return made

    def _label(self, draw: Draw, mask: Pixels | None) -> npt.NDArray[np.float32]:
        seen = self.labels[draw.image]
        if mask is not None and self.steps.crop is not None:
            seen = present(mask, self.cache.classes)
        return np.asarray(seen, np.float32)


def present(mask: Pixels, classes: int) -> npt.NDArray[np.bool_]:
    """Tell which classes a label map `(h, w)` or channels `(h, w, K)` show: `(K,)`."""
    if mask.ndim == 3:
        return np.asarray(mask.any(axis=(0, 1)))
    seen = np.zeros(classes, bool)
    for number in range(1, min(int(mask.max(initial=0)), classes) + 1):
        seen[number - 1] = (mask == number).any()
    return seen


def planes(maps: Tensor, classes: int) -> Tensor:
    """Return `(N, K, h, w)` float32 of 0 and 1 from label maps `(N, h, w)` uint8."""
    out = torch.empty(
        (len(maps), classes, *maps.shape[1:]), dtype=torch.float32, device=maps.device
    )
    for index in range(classes):
        # Straight into floats: on a CPU a fifth of the time of comparing first.
        torch.eq(maps, index + 1, out=out[:, index])
    return out


def _stack(arrays: Sequence[npt.NDArray[Any]]) -> Tensor:
    if len({array.shape for array in arrays}) > 1:
        shapes = sorted({array.shape for array in arrays})
        raise UsageError(
            f"the images of a batch differ in shape: {', '.join(map(str, shapes))}",
            hint="set crop in the recipe, or let augment and input keep sizes equal",
        )
    return torch.from_numpy(np.stack(arrays))


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
    seen = np.flatnonzero(present(mask, mask.shape[2] if mask.ndim == 3 else int(mask.max())))
    if not len(seen):
        return None
    index = int(rng.choice(seen)) if len(seen) > 1 else int(seen[0])
    plane = mask[..., index] > 0 if mask.ndim == 3 else mask == index + 1
    row, column = divmod(int(rng.choice(np.flatnonzero(plane))), mask.shape[1])
    return row, column


def _grow(pixels: Pixels, size: tuple[int, int]) -> Pixels:
    down, right = max(0, size[0] - pixels.shape[0]), max(0, size[1] - pixels.shape[1])
    if not down and not right:
        return pixels
    grown = cv2.copyMakeBorder(
        pixels, down // 2, down - down // 2, right // 2, right - right // 2, cv2.BORDER_REFLECT
    )
    return np.asarray(grown, np.uint8).reshape(*grown.shape[:2], *pixels.shape[2:])

"""What augmentations, inputs, models and losses must not do, each with its mend."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from torch import Tensor

from kagflow.learn.cache import Pixels
from kagflow.learn.dataset import to_channels
from kagflow.learn.look_steps import describe
from kagflow.resolve import Fault


def augmented(given: dict[str, Any], made: Any, classes: int) -> Fault | None:
    """Say what an augmentation must not do to a grey uint8 image and its mask."""
    if not isinstance(made, dict) or not isinstance(made.get("image"), np.ndarray):
        return Fault(
            "augment", "the augmentation returned no image", "return an albumentations.Compose"
        )
    image, mask, before = made["image"], made.get("mask"), given.get("mask")
    if image.dtype != np.uint8:
        return Fault(
            "augment",
            f"the augmentation made {describe(image)} of a uint8 image",
            "leave Normalize, ToFloat and ToTensorV2 out: the recipe's input does that",
        )
    if image.ndim != 2:
        what = f"the augmentation made {image.shape} of a grey image {given['image'].shape}"
        return Fault("augment", what, "keep the image (H, W): no ToRGB, no axis more")
    if before is None:
        return None
    if not isinstance(mask, np.ndarray) or mask.dtype != np.uint8:
        what = f"the augmentation made {describe(mask)} of a mask of uint8"
        return Fault("augment", what, "keep the mask as it is but for its shape")
    if mask.shape[:2] != image.shape:
        what = f"the image is {image.shape} after augmentation, its mask {mask.shape[:2]}"
        return Fault("augment", what, "use transforms that move both, on `image` and `mask`")
    return _values(before, mask, classes)


def _values(before: Pixels, after: Pixels, classes: int) -> Fault | None:
    there, now = set(np.unique(before).tolist()) | {0}, set(np.unique(after).tolist())
    if now <= there:
        return None
    most = 1 if after.ndim == 3 else classes
    new = ", ".join(map(str, sorted(now - there)[:5]))
    allowed = "0 and 1" if most == 1 else f"0 to {most}, one for each class"
    what = f"the augmentation put {new} into the mask, which were not there (it holds {allowed})"
    return Fault("augment", what, "classes must not blend: mask_interpolation=0, fill_mask=0")


def entered(made: Any, size: tuple[int, ...] | None) -> Fault | None:
    """Say what an input must return; `size` is that of the masks, None where there are none."""
    if not isinstance(made, np.ndarray):
        return Fault(
            "input", f"the input returned {describe(made)}", "return a numpy array (C, H, W)"
        )
    if made.dtype != np.float32:
        what = f"the input returned {made.dtype}"
        return Fault("input", what, "return float32: .astype(np.float32)")
    if made.ndim != 3:
        what = f"the input returned shape {made.shape}"
        return Fault("input", what, "return (C, H, W): image[None] makes one channel")
    if not np.isfinite(made).all():
        return Fault(
            "input", "the input returned numbers that are none", "look for a division by 0"
        )
    if size is not None and made.shape[1:] != tuple(size):
        what = f"the input returned {made.shape} for an image of {tuple(size)}, as its mask is"
        return Fault("input", what, "keep the size; `size` in the recipe changes it for both")
    if any(stride < 0 for stride in made.strides):
        what = "the input returned a mirrored view, of which no tensor can be made"
        return Fault("input", what, "return np.ascontiguousarray(...)")
    return None


def shown(mask: Pixels) -> tuple[int, ...]:
    """Return the classes that a label map (h, w) or channels (h, w, C) shows."""
    if mask.ndim == 3:
        return tuple(np.flatnonzero(to_channels(mask, mask.shape[2]).any(axis=(1, 2))).tolist())
    return tuple(int(value) - 1 for value in np.unique(mask) if value)


def returned(outputs: Mapping[str, Any], images: Tensor, classes: int) -> list[Fault]:
    """Say what a model's named outputs are not that a loss and the kernel need."""
    count, _, height, width = images.shape
    wanted: dict[str, tuple[int, ...]] = {
        "mask": (count, classes, height, width), "label": (count, classes),
    }  # fmt: skip
    faults = []
    for name, value in outputs.items():
        if not isinstance(value, Tensor):
            faults.append(
                Fault("model", f"'{name}' is {describe(value)}", "return a tensor of logits")
            )
            continue
        shape, right = tuple(value.shape), wanted.get(name)
        if name.startswith("aux"):
            right = (count, classes, *shape[2:]) if len(shape) == 4 else (count, classes, 1, 1)
        if right is not None and shape != right:
            what = (
                f"'{name}' logits are {shape} for images {tuple(images.shape)}, {classes} classes"
            )
            faults.append(Fault("model", what, f"return {right}{_how(shape, right)}"))
        elif not value.isfinite().all():
            mend = "look for log, sqrt or a division at 0 in the model"
            faults.append(Fault("model", f"'{name}' holds values that are no numbers", mend))
    return faults


def doubts(outputs: Mapping[str, Any]) -> list[str]:
    """Say which outputs look like probabilities: losses and the kernel take the sigmoid."""
    return [
        f"'{name}' lies between 0 and 1: is it a sigmoid? the model should return logits"
        for name, value in outputs.items()
        if isinstance(value, Tensor) and value.min() >= 0 and value.max() <= 1
    ]


def _how(shape: tuple[int, ...], right: tuple[int, ...]) -> str:
    if len(shape) == len(right) == 4 and shape[:2] == right[:2]:
        return ": F.interpolate(logits, batch.shape[-2:], mode='bilinear')"
    if len(shape) == len(right) and shape[0] == right[0] and shape[2:] == right[2:]:
        return ": as many channels as the argument `classes` says"
    return ""


def judged(value: Any) -> list[Fault]:
    """Say why a loss cannot be gone down."""
    if not isinstance(value, Tensor):
        what = f"the loss returned {describe(value)}"
        return [Fault("loss", what, "return a torch scalar made of the outputs, without .item()")]
    if value.ndim:
        what = f"the loss returned a tensor of shape {tuple(value.shape)}, no scalar"
        return [Fault("loss", what, "reduce it: .mean() or .sum()")]
    if not value.isfinite():
        what = f"the loss is {float(value.detach())}"
        return [Fault("loss", what, "look for log, sqrt or a division at 0; clamp, or add an eps")]
    if not value.requires_grad:
        what = "the loss has no gradient"
        mend = "compute it in torch from `outputs`, without .item(), .detach() or numpy"
        return [Fault("loss", what, mend)]
    return []

"""Augmentations, inputs, models and losses that are wrong, each in one way."""

from __future__ import annotations

import albumentations as A
import numpy as np
import torch
from torch import nn


def changed(image=None, mask=None):
    return A.Compose([A.Lambda(image=image or same, mask=mask or same, p=1.0)])


def aug_raises():
    def broken(image, **_):
        return image[:, :, 3]

    return changed(image=broken)


def same(x, **_):
    return x


def aug_floats():
    return A.Compose([A.ToFloat(max_value=255, p=1.0)])


def aug_three_axes():
    return changed(image=lambda x, **_: np.stack([x] * 3, axis=-1))


def aug_blends():
    return changed(mask=lambda x, **_: (x * 3).astype(np.uint8))


def aug_mask_floats():
    return changed(mask=lambda x, **_: x.astype(np.float32))


def aug_image_alone():
    return changed(image=lambda x, **_: np.ascontiguousarray(x[:32]))


def aug_resizes():
    return A.Compose([A.Resize(32, 32, p=1.0)])


def aug_random_size():
    return A.Compose([A.OneOf([A.Resize(32, 32), A.Resize(48, 48)], p=1.0)])


class InputRaises:
    def __call__(self, image, metadata):
        return image / metadata["no_such_key"]


def input_doubles():
    return lambda image, metadata: (image / 255)[None]


def input_flat():
    return lambda image, metadata: (image / 255).astype(np.float32)


def input_half():
    return lambda image, metadata: (image[::2, ::2] / 255)[None].astype(np.float32)


def input_mirrored():
    return lambda image, metadata: (image / 255)[None].astype(np.float32)[:, ::-1]


def input_nan():
    return lambda image, metadata: np.log(image * np.float32(0) - 1)[None].astype(np.float32)


def input_two():
    return lambda image, metadata: np.stack([image, 255 - image]).astype(np.float32)


class Net(nn.Module):
    """Be wrong in the way that `how` says."""

    def __init__(self, *, classes, how="well"):
        super().__init__()
        self.how = how
        self.conv = nn.Conv2d(1, classes, 3, padding=1)
        self.unused = nn.Linear(1, 1)
        self.frozen = nn.Parameter(torch.zeros(1), requires_grad=False)

    def forward(self, batch):
        logits = self.conv(batch)
        if self.how == "raises":
            return logits @ torch.zeros(3, 5)
        return {
            "well": logits,
            "channels": logits[:, :1],
            "size": logits[..., ::2, ::2],
            "name": {"masks": logits},
            "list": [logits],
            "nan": logits * float("nan"),
            "probabilities": logits.sigmoid(),
            "label": {"mask": logits, "label": logits},
        }[self.how]


def loss(how="well"):
    def well(outputs, target):
        value = nn.functional.binary_cross_entropy_with_logits(
            outputs["mask"], target["mask"].float(), reduction="none"
        )
        if how == "raises":
            return value.mean() + outputs["label"]
        return {
            "well": value.mean(),
            "map": value,
            "float": value.mean().item(),
            "detached": value.mean().detach(),
            "nan": value.mean() * float("inf"),
        }[how]

    return well

"""Augmentations on the uint8 grey image and its label map, before the input makes floats of it."""

from __future__ import annotations

import os
import random
from typing import Any

import numpy as np
import numpy.typing as npt

AUGMENTS = {
    "none": "kagflow.learn.augment:none",
    "flips": "kagflow.learn.augment:flips",
    "light": "kagflow.learn.augment:light",
}

Pixels = npt.NDArray[np.uint8]


def none() -> Any:
    """Change nothing."""
    return _albumentations().Compose([])


def flips(*, horizontal: float = 0.5, vertical: float = 0.5) -> Any:
    """Mirror left-right and up-down with the given probabilities."""
    A = _albumentations()
    return A.Compose([A.HorizontalFlip(p=horizontal), A.VerticalFlip(p=vertical)])


def light(*, contrast: float = 0.2, shift: float = 0.05, scale: float = 0.1) -> Any:
    """Mirror, change brightness and contrast, and shift and scale a little."""
    A = _albumentations()
    return A.Compose(
        [
            A.HorizontalFlip(p=0.5),
            A.VerticalFlip(p=0.5),
            A.RandomBrightnessContrast(contrast, contrast, p=0.5),
            A.Affine(
                translate_percent=(-shift, shift),
                scale=(1 - scale, 1 + scale),
                border_mode=4,
                p=0.5,
            ),
        ]
    )


def apply(compose: Any, image: Pixels, mask: Pixels | None, *, seed: int) -> tuple[Pixels, Any]:
    """Augment image `(H, W)` and mask `(H, W)` or `(H, W, C)` with `seed` alone.

    One generator is shared by all transforms: `Compose.set_random_seed` would give each its own
    with the same seed, and then a horizontal flip always comes with a vertical one.
    """
    compose.set_random_state(np.random.default_rng(seed), random.Random(seed))  # noqa: S311
    if mask is None:
        return compose(image=image)["image"], None
    done = compose(image=image, mask=mask)
    return done["image"], done["mask"]


def _albumentations() -> Any:
    # It asks a package index for news on import otherwise.
    os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")
    import albumentations

    return albumentations

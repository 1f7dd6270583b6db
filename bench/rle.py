"""Write and read run lengths beside the usual notebook functions and pycocotools: same bits.

256x1600 masks, of which three in four are empty, as in a submission; the others are blobs.
"""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np
import oof_world
from pycocotools import mask as coco

from kagflow.task import rle

MASKS, REPEATS = 200, 11
SHAPE = oof_world.HEIGHT, oof_world.WIDTH


def masks() -> list[np.ndarray]:
    """Return masks (H, W) uint8, three in four of them empty."""
    rng = np.random.default_rng(0)
    empty = np.zeros(SHAPE, np.uint8)
    return [oof_world.shape(rng) if number % 4 == 0 else empty for number in range(MASKS)]


def notebook_encode(mask: np.ndarray) -> str:
    """Encode as `mask2rle` of a thousand kernels does."""
    pixels = mask.T.flatten()
    pixels = np.concatenate([[0], pixels, [0]])
    runs = np.where(pixels[1:] != pixels[:-1])[0] + 1
    runs[1::2] -= runs[::2]
    return " ".join(str(x) for x in runs)


def notebook_decode(text: str) -> np.ndarray:
    """Decode as `rle2mask` of a thousand kernels does."""
    s = text.split()
    starts, lengths = [np.asarray(x, dtype=int) for x in (s[0:][::2], s[1:][::2])]
    starts -= 1
    ends = starts + lengths
    img = np.zeros(SHAPE[0] * SHAPE[1], dtype=np.uint8)
    for lo, hi in zip(starts, ends, strict=True):
        img[lo:hi] = 1
    return img.reshape(SHAPE[::-1]).T


def coco_encode(mask: np.ndarray) -> dict:
    """Encode with pycocotools to its own bytes; what Kaggle reads would take longer."""
    return coco.encode(np.asfortranarray(mask))


def pairs(kind: str, baseline: str) -> list[tuple[float, float]]:
    """Time ours and a baseline in turn; raises AssertionError where a bit differs."""
    drawn = masks()
    texts = [notebook_encode(mask) for mask in drawn]
    packed = [coco_encode(mask) for mask in drawn]
    for mask, text, own in zip(drawn, texts, packed, strict=True):
        assert rle.encode(mask) == text
        for read in (rle.decode(text, *SHAPE), notebook_decode(text), coco.decode(own)):
            assert np.array_equal(read, mask)
    theirs = {
        ("encode", "notebook"): (notebook_encode, drawn),
        ("encode", "pycocotools"): (coco_encode, drawn),
        ("decode", "notebook"): (notebook_decode, texts),
        ("decode", "pycocotools"): (coco.decode, packed),
    }[kind, baseline]
    mine = (rle.encode, drawn) if kind == "encode" else (_decode, texts)
    return [(_seconds(*mine), _seconds(*theirs)) for _ in range(REPEATS)]


def _decode(text: str) -> np.ndarray:
    return rle.decode(text, *SHAPE)


def _seconds(job: Callable, given: list) -> float:
    began = time.perf_counter()
    for one in given:
        job(one)
    return time.perf_counter() - began


if __name__ == "__main__":
    for kind in ("encode", "decode"):
        for baseline in ("notebook", "pycocotools"):
            ratios = sorted(two / one for one, two in pairs(kind, baseline))
            print(
                kind,
                baseline,
                f"{ratios[len(ratios) // 2]:.1f}x",
                f"{ratios[0]:.1f}-{ratios[-1]:.1f}",
            )

"""Write out-of-fold maps for as many images as Severstal has, and measure the store.

12,568 images of 256x1600 and 4 classes. 6,666 images have a defect, as blurred blobs with ragged
borders; on every image lies the haze that a sigmoid leaves on steel. Its depth and grain are those
of the roughest sparse store that a run on real tiles left (48 % of bytes are 0, 42 % 1 to 3, 9 % 4
to 15; 68 kB for as many pixels); the smoothest took 13 kB. Sixty distinct maps are shifted about.
"""

from __future__ import annotations

import random
import sys
import tempfile
import time
from pathlib import Path

import cv2
import numpy as np

from kagflow.learn.oof import FLOOR, OofReader, OofWriter

IMAGES, HEIGHT, WIDTH, CLASSES = 12_568, 256, 1600, 4
WITH_DEFECT = 6666 / 12_568
SHARES = (0.13, 0.03, 0.73, 0.11)
KINDS = 60
# The logit of clean steel, how far it strays, and the pixels between two of its values.
CLEAN, HAZE, GRAIN = -6.15, 1.5, 20


def logits(rng: np.random.Generator) -> np.ndarray:
    """Return (C, H, W) float32: clean steel, with a defect or without."""
    out = np.empty((CLASSES, HEIGHT, WIDTH), np.float32)
    for index in range(CLASSES):
        coarse = rng.normal(0, 1, (HEIGHT // GRAIN + 1, WIDTH // GRAIN)).astype(np.float32)
        noise = cv2.resize(coarse, (WIDTH, HEIGHT), interpolation=cv2.INTER_LINEAR)
        out[index] = CLEAN + HAZE * noise / noise.std()
    if rng.random() < WITH_DEFECT:
        chosen = rng.choice(CLASSES, p=SHARES)
        blob = np.zeros((HEIGHT, WIDTH), np.float32)
        for _ in range(int(rng.integers(1, 6))):
            centre = (int(rng.integers(0, WIDTH)), int(rng.integers(0, HEIGHT)))
            axes = (int(rng.integers(5, 120)), int(rng.integers(5, 60)))
            cv2.ellipse(blob, centre, axes, float(rng.integers(0, 180)), 0, 360, 1.0, -1)
        ragged = cv2.GaussianBlur(rng.normal(0, 1, blob.shape).astype(np.float32), (0, 0), 4)
        soft = cv2.GaussianBlur(blob, (0, 0), 5) + 0.6 * ragged * (blob > 0)
        out[chosen] += 12 * soft
    return out


def measure(count: int) -> str:
    """Write, read at random, and say the size and times."""
    rng = np.random.default_rng(0)
    kinds = [1 / (1 + np.exp(-logits(rng))) for _ in range(min(KINDS, count))]
    with tempfile.TemporaryDirectory(prefix="kagflow-bench-") as name:
        folder, wrote, read, worst = Path(name) / "oof", 0.0, 0.0, 0.0
        with OofWriter(folder, "mask", CLASSES) as store:
            for number in range(count):
                probs = np.roll(kinds[number % len(kinds)], 8 * number, axis=2)
                start = time.perf_counter()
                store.add(f"{number:08x}.jpg", probs, HEIGHT, WIDTH)
                wrote += time.perf_counter() - start
        size = sum(file.stat().st_size for file in folder.iterdir())
        chosen = random.Random(0).sample(range(count), min(200, count))
        with OofReader(folder) as store:
            for number in chosen:
                start = time.perf_counter()
                mask = store.mask(f"{number:08x}.jpg")
                read += time.perf_counter() - start
                true = np.roll(kinds[number % len(kinds)], 8 * number, axis=2)
                error = np.abs(mask - true)
                worst = max(worst, float(error[mask > 0].max(initial=0)))
                assert error.max() < (FLOOR - 0.5) / 255 + 1e-6
    assert worst <= 1 / 510 + 1e-6
    return (
        f"{count} images of {CLASSES}x{HEIGHT}x{WIDTH} take {size / 1e6:.0f} MB, "
        f"{size / count / 1e3:.1f} kB an image, which is {size / count * IMAGES / 1e9:.2f} GB for "
        f"{IMAGES}; {1000 * wrote / count:.1f} ms to write one, "
        f"{1000 * read / len(chosen):.1f} ms to read one in any order"
    )


if __name__ == "__main__":
    print(measure(int(sys.argv[1]) if len(sys.argv) > 1 else IMAGES))

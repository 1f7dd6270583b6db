"""Write out-of-fold maps for as many images as Severstal has, and measure the store.

12,568 images of 256x1600 and 4 classes. The maps are made as a segmenter's look: 7,095 defects
(every second image has one) as blurred blobs with ragged borders, and on every image the faint
haze around 1/255 that a sigmoid leaves on steel. A few hundred distinct maps are shifted about.
"""

from __future__ import annotations

import random
import sys
import tempfile
import time
from pathlib import Path

import cv2
import numpy as np

from kagflow.learn.oof import OofReader, OofWriter

IMAGES, HEIGHT, WIDTH, CLASSES = 12_568, 256, 1600, 4
WITH_DEFECT = 6666 / 12_568
SHARES = (0.13, 0.03, 0.73, 0.11)
KINDS = 200
# How far a smoothed logit's noise goes, and the logit of clean steel.
HAZE, CLEAN = 1.0, -7.0


def logits(rng: np.random.Generator) -> np.ndarray:
    """Return (C, H, W) float32: clean steel, with a defect or without."""
    out = np.empty((CLASSES, HEIGHT, WIDTH), np.float32)
    for index in range(CLASSES):
        coarse = rng.normal(CLEAN, HAZE, (HEIGHT // 4, WIDTH // 4)).astype(np.float32)
        out[index] = cv2.resize(coarse, (WIDTH, HEIGHT), interpolation=cv2.INTER_LINEAR)
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


def main() -> None:
    """Write, read at random, and print the size and times."""
    count = int(sys.argv[1]) if len(sys.argv) > 1 else IMAGES
    rng = np.random.default_rng(0)
    kinds = [1 / (1 + np.exp(-logits(rng))) for _ in range(min(KINDS, count))]
    with tempfile.TemporaryDirectory(prefix="kagflow-bench-") as name:
        folder, wrote = Path(name) / "oof", 0.0
        with OofWriter(folder, "mask", CLASSES) as store:
            for number in range(count):
                probs = np.roll(kinds[number % len(kinds)], 8 * number, axis=2)
                start = time.perf_counter()
                store.add(f"{number:08x}.jpg", probs, HEIGHT, WIDTH)
                wrote += time.perf_counter() - start
        size = sum(file.stat().st_size for file in folder.iterdir())
        chosen = random.Random(0).sample(range(count), min(200, count))
        with OofReader(folder) as store:
            start = time.perf_counter()
            worst = 0.0
            for number in chosen:
                mask = store.mask(f"{number:08x}.jpg")
                read = np.roll(kinds[number % len(kinds)], 8 * number, axis=2)
                worst = max(worst, float(np.abs(mask - read).max()))
            each = (time.perf_counter() - start) / len(chosen)
    print(
        f"{count} images: {size / 1e6:.0f} MB, {size / count / 1e3:.1f} kB an image; "
        f"{size / count * IMAGES / 1e9:.2f} GB for {IMAGES}; write {1000 * wrote / count:.1f} ms, "
        f"read and compare {1000 * each:.1f} ms an image; largest error {worst:.5f}"
    )


if __name__ == "__main__":
    main()

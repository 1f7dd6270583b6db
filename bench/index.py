"""Time the survey of as many images as Severstal has: 12,568 of 256x1600, on this machine."""

from __future__ import annotations

import sys
import tempfile
import time
from multiprocessing import Pool
from pathlib import Path

import cv2
import numpy as np

from kagflow.task.spec import TaskSpec
from kagflow.task.survey import survey
from kagflow.task.surveyed import Plan

IMAGES, HEIGHT, WIDTH = 12_568, 256, 1600
SPEC = TaskSpec("bench", "segmentation", ("1", "2", "3", "4"), height=HEIGHT, width=WIDTH)


def plates() -> list[np.ndarray]:
    """Return a few textures of which every image is a shifted, brightened copy."""
    rng = np.random.default_rng(0)
    fine = rng.normal(128, 18, (24, HEIGHT, WIDTH))
    return [cv2.GaussianBlur(one, (0, 0), 0.8).clip(0, 255).astype(np.uint8) for one in fine]


def write(order: tuple[str, int, int]) -> None:
    """Write a share of the images."""
    folder, start, step = order
    made = plates()
    for number in range(start, IMAGES, step):
        rng = np.random.default_rng(number)
        low = cv2.resize(rng.integers(0, 60, (8, 50), np.uint8), (WIDTH, HEIGHT))
        grey = cv2.add(np.roll(made[number % len(made)], number * 7, axis=1), low)
        colour = cv2.cvtColor(grey, cv2.COLOR_GRAY2BGR)
        cv2.imwrite(f"{folder}/{number:08x}.jpg", colour, [cv2.IMWRITE_JPEG_QUALITY, 85])


def write_labels(path: Path) -> None:
    """Write as many rows as Severstal has, some hundred runs each."""
    rng = np.random.default_rng(1)
    rows = ["ImageId,ClassId,EncodedPixels"]
    for number in rng.choice(IMAGES, 7095, replace=False).tolist():
        starts = np.sort(rng.choice(HEIGHT * WIDTH // 100, 150, replace=False)) * 100 + 1
        runs = " ".join(f"{start} {rng.integers(1, 99)}" for start in starts.tolist())
        rows.append(f"{number:08x}.jpg,{rng.integers(1, 5)},{runs}")
    path.write_text("\n".join(rows) + "\n")


def main() -> None:
    """Generate, survey, and print the seconds."""
    with tempfile.TemporaryDirectory(prefix="kagflow-bench-") as name:
        data = Path(name)
        (data / "train_images").mkdir()
        began = time.perf_counter()
        with Pool(2) as pool:
            pool.map(write, [(str(data / "train_images"), start, 2) for start in (0, 1)])
        write_labels(data / "train.csv")
        size = sum(file.stat().st_size for file in (data / "train_images").iterdir())
        print(f"made {size / 1e9:.2f} GB in {time.perf_counter() - began:.0f} s", file=sys.stderr)
        began = time.perf_counter()
        found = survey(data, SPEC, Plan(5), version="bench")
        print(f"{found.images} images surveyed in {time.perf_counter() - began:.1f} s: {found}")


if __name__ == "__main__":
    main()

"""Generate out-of-fold stores of several members at any size, in the format of real runs.

Severstal's shares: 41 %, 7 %, 6 % and 2 % of the images show classes 3, 1, 4 and 2. A model finds
most of them, with borders and certainty of its own, and invents some; elsewhere its maps are a haze
far below any threshold. A few hundred distinct images are shifted about.
"""

from __future__ import annotations

from concurrent.futures import ProcessPoolExecutor
from functools import cache
from pathlib import Path

import cv2
import numpy as np

from kagflow import durable
from kagflow.learn.oof import OofWriter
from kagflow.task import rle
from kagflow.task.folds import write_folds
from kagflow.task.spec import TaskSpec

HEIGHT, WIDTH, FOLDS, KINDS = 256, 1600, 5, 200
SHARES = (0.07, 0.02, 0.41, 0.06)
SPEC = TaskSpec("bench", "segmentation", ("1", "2", "3", "4"), height=HEIGHT, width=WIDTH)


def make(home: Path, images: int, members: int) -> dict[str, list[Path]]:
    """Write data and `members` finished runs of five folds; return {run: fold folders}."""
    data = home / "data"
    durable.write_json(data / "manifest.json", {"profile": "local", "files": {}})
    folds = {name_of(n): (n // 2, n // 2 % FOLDS) for n in range(images)}
    write_folds(data / "folds.csv", folds)
    rows = ["ImageId,ClassId,EncodedPixels"]
    for number in range(images):
        for index, mask in masks_of(number).items():
            shifted = np.roll(mask, shift_of(number), axis=1)
            rows.append(f"{name_of(number)},{index + 1},{rle.encode(shifted)}")
    durable.write_text(data / "train.csv", "\n".join(rows) + "\n")
    with ProcessPoolExecutor(2) as pool:
        jobs = [(home, images, member) for member in range(members)]
        made = list(pool.map(_write_run, jobs))
    return dict(made)


def name_of(number: int) -> str:
    """Return the file name of an image."""
    return f"{number:08x}.jpg"


def shift_of(number: int) -> int:
    """Return by how many columns an image's kind is rolled."""
    return 16 * (number // KINDS)


def masks_of(number: int) -> dict[int, np.ndarray]:
    """Return the masks of an image's kind: {class index: (H, W) uint8}."""
    rng = np.random.default_rng([7, number % KINDS])
    return {index: shape(rng) for index, share in enumerate(SHARES) if rng.random() < share}


@cache
def maps_of(kind: int, member: int) -> np.ndarray:
    """Return a member's probabilities of a kind of image: (4, H, W) float32.

    The later a member, the more it misses and invents.
    """
    rng = np.random.default_rng([11, member, kind])
    true, missed, invented = masks_of(kind), 0.06 + 0.02 * member, 0.01 + 0.006 * member
    haze = cv2.resize(rng.random((16, 50), np.float32) * 0.02, (WIDTH, HEIGHT))
    probs = np.repeat(haze[None], len(SHARES), axis=0)
    for index in range(len(SHARES)):
        if index in true and rng.random() > missed:
            soft = _seen(true[index], rng) * float(rng.uniform(0.6, 1))
        elif rng.random() < invented:
            soft = _seen(shape(rng), rng) * float(rng.uniform(0.4, 0.9))
        else:
            continue
        probs[index] = np.maximum(probs[index], soft)
    return np.clip(probs, 0, 1)


def _write_run(job: tuple[Path, int, int]) -> tuple[str, list[Path]]:
    home, images, member = job
    run, folders = f"member{member}", []
    for fold in range(FOLDS):
        folder = home / "runs" / "bench" / run / f"fold{fold}"
        held = [n for n in range(images) if n // 2 % FOLDS == fold]
        with OofWriter(folder / "oof", "mask", len(SHARES)) as store:
            for n in held:
                probs = np.roll(maps_of(n % KINDS, member), shift_of(n), axis=2)
                store.add(name_of(n), probs, HEIGHT, WIDTH)
        durable.write_json(folder / "run.json", _facts(home, run, fold, len(held)))
        folders.append(folder)
    maps_of.cache_clear()
    return run, folders


def _facts(home: Path, run: str, fold: int, images: int) -> dict[str, object]:
    return {
        "competition": "bench", "name": run, "fold": fold, "folds": FOLDS, "predicts": "mask",
        "recipe": {
            "model": {"target": "smp", "kwargs": {}}, "input": {"target": "grey", "kwargs": {}},
            "size": None, "tta": ["none"],
        },
        "seconds": 1.0, "images": images, "score": 0.9, "floor": 0.8, "seconds_per_image": 0.01,
        "data": durable.sha256_file(home / "data" / "manifest.json"),
    }  # fmt: skip


def _seen(mask: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    soft = cv2.GaussianBlur(mask.astype(np.float32), (0, 0), float(rng.uniform(2, 5)))
    moved = np.float32([[1, 0, rng.normal(0, 2)], [0, 1, rng.normal(0, 2)]])
    return cv2.warpAffine(soft, moved, (WIDTH, HEIGHT))


def shape(rng: np.random.Generator) -> np.ndarray:
    """Draw one to four ellipses near each other: a mask (H, W) uint8."""
    mask = np.zeros((HEIGHT, WIDTH), np.uint8)
    across = int(rng.integers(60, WIDTH - 60))
    for _ in range(int(rng.integers(1, 5))):
        centre = (across + int(rng.normal(0, 80)), int(rng.integers(20, HEIGHT - 20)))
        axes = (int(rng.integers(6, 60)), int(rng.integers(5, 40)))
        cv2.ellipse(mask, centre, axes, float(rng.uniform(0, 180)), 0, 360, 1, -1)
    return mask

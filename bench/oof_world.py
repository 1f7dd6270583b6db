"""Generate out-of-fold stores of several members at any size, in the format of real runs.

Severstal's shares: 41 %, 7 %, 6 % and 2 % of the images show classes 3, 1, 4 and 2. A model finds
most of them with borders and certainty of its own, and invents some; elsewhere its maps are a haze
far below any threshold, which is what makes real maps compress to a third.
"""

from __future__ import annotations

from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import cv2
import numpy as np

from kagflow.learn.oof import OofWriter
from kagflow.task import rle

HEIGHT, WIDTH = 256, 1600
SHARES = (0.07, 0.02, 0.41, 0.06)
MISSED, INVENTED = 0.15, 0.04


def truth_of(number: int) -> dict[int, tuple[np.ndarray, str]]:
    """Return the masks of an image: {class index: (mask, run lengths)}."""
    rng = np.random.default_rng([7, number])
    found = {}
    for index, share in enumerate(SHARES):
        if rng.random() < share:
            mask = _shape(rng)
            found[index] = mask, rle.encode(mask)
    return found


def maps_of(number: int, member: int, truth: dict[int, tuple[np.ndarray, str]]) -> np.ndarray:
    """Return a member's probabilities of an image: (4, H, W) float32."""
    rng = np.random.default_rng([11, member, number])
    haze = cv2.resize(rng.random((16, 50), np.float32) * 0.02, (WIDTH, HEIGHT))
    probs = np.repeat(haze[None], len(SHARES), axis=0)
    for index in range(len(SHARES)):
        if index in truth and rng.random() > MISSED:
            mask = truth[index][0]
        elif rng.random() < INVENTED:
            mask = _shape(rng)
        else:
            continue
        left, top, width, height = cv2.boundingRect(mask)
        pad = 12
        rows = slice(max(top - pad, 0), min(top + height + pad, HEIGHT))
        columns = slice(max(left - pad, 0), min(left + width + pad, WIDTH))
        soft = mask[rows, columns].astype(np.float32)
        soft = cv2.GaussianBlur(soft, (0, 0), float(rng.uniform(2, 5)))
        shift = np.float32([[1, 0, rng.normal(0, 2)], [0, 1, rng.normal(0, 2)]])
        soft = cv2.warpAffine(soft, shift, soft.shape[::-1])
        probs[index, rows, columns] = np.maximum(
            probs[index, rows, columns], soft * float(rng.uniform(0.6, 1))
        )
    return np.clip(probs, 0, 1)


def write(folder: Path, images: int, members: int) -> dict[str, dict[int, str]]:
    """Write `members` stores of `images` and return what is true."""
    jobs = [(folder / f"member{member}", images, member) for member in range(members)]
    with ProcessPoolExecutor(2) as pool:
        list(pool.map(_write_one, jobs))
    truth = {}
    for number in range(images):
        truth[name_of(number)] = {c: text for c, (_, text) in truth_of(number).items()}
    return truth


def name_of(number: int) -> str:
    """Return the file name of an image."""
    return f"{number:08x}.jpg"


def _write_one(job: tuple[Path, int, int]) -> None:
    folder, images, member = job
    with OofWriter(folder, "mask", len(SHARES)) as store:
        for number in range(images):
            probs = maps_of(number, member, truth_of(number))
            store.add(name_of(number), probs, HEIGHT, WIDTH)


def _shape(rng: np.random.Generator) -> np.ndarray:
    """Draw one to four ellipses: a mask (H, W) uint8."""
    mask = np.zeros((HEIGHT, WIDTH), np.uint8)
    across = int(rng.integers(60, WIDTH - 60))
    for _ in range(int(rng.integers(1, 5))):
        centre = (across + int(rng.normal(0, 80)), int(rng.integers(20, HEIGHT - 20)))
        axes = (int(rng.integers(6, 60)), int(rng.integers(5, 40)))
        cv2.ellipse(mask, centre, axes, float(rng.uniform(0, 180)), 0, 360, 1, -1)
    return mask

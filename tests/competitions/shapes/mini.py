"""Draw the images and write the folder that the embedded Kaggle registers."""

from __future__ import annotations

import csv
from collections.abc import Iterable
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt

from kagflow.progress import QUIET, Progress

CLASSES = ("cross", "disc", "square")
SIDE = 48
SPLITS = {"train": 180, "Public": 30, "Private": 90}
# How often an image shows none, one or two shapes.
COUNTS = (0.25, 0.5, 0.25)


def generate(out: Path, *, seed: int, progress: Progress | None = None) -> None:
    """Write public/, hidden/ and solution.csv below `out`; a seed gives the same bytes."""
    rng = np.random.default_rng([seed, 48])
    progress = progress or QUIET
    progress.start("drawing shapes", sum(SPLITS.values()), "images")
    labels = {split: _draw_split(out, split, rng, progress) for split in SPLITS}
    progress.finish()
    hidden = sorted({**labels["Public"], **labels["Private"]})
    _write(out / "public/train.csv", ("ImageId", "Label"), labels["train"].items())
    for part, names in (("public", sorted(labels["Public"])), ("hidden", hidden)):
        rows = ((name, CLASSES[0]) for name in names)
        _write(out / part / "sample_submission.csv", ("ImageId", "Label"), rows)
    solution = (
        (name, label, split, SIDE, SIDE)
        for split in ("Public", "Private")
        for name, label in labels[split].items()
    )
    header = ("ImageId", "Label", "Usage", "Height", "Width")
    _write(out / "solution.csv", header, sorted(solution))


def draw(shown: Iterable[str], rng: np.random.Generator) -> npt.NDArray[np.uint8]:
    """Return a noisy image (SIDE, SIDE) with each of the shapes somewhere, in some grey."""
    image = rng.normal(110, 12, (SIDE, SIDE))
    image += np.linspace(0, rng.uniform(-30, 30), SIDE)
    for at, name in enumerate(shown):
        # One shape in each half, so that none hides another.
        x = int(rng.integers(9, 16)) + 24 * at
        y, radius = int(rng.integers(9, SIDE - 9)), int(rng.integers(5, 8))
        mask = np.zeros((SIDE, SIDE), np.uint8)
        _paint(mask, name, (x, y), radius)
        image += mask * float(rng.choice((-1, 1)) * rng.uniform(35, 70))
    return np.clip(image, 0, 255).astype(np.uint8)


def _paint(mask: npt.NDArray[np.uint8], name: str, centre: tuple[int, int], radius: int) -> None:
    x, y = centre
    if name == "disc":
        cv2.circle(mask, centre, radius, 1, -1)
    elif name == "square":
        cv2.rectangle(mask, (x - radius, y - radius), (x + radius, y + radius), 1, -1)
    else:
        cv2.rectangle(mask, (x - radius, y - 1), (x + radius, y + 1), 1, -1)
        cv2.rectangle(mask, (x - 1, y - radius), (x + 1, y + radius), 1, -1)


def _draw_split(
    out: Path, split: str, rng: np.random.Generator, progress: Progress
) -> dict[str, str]:
    folders = {
        "train": ("public/train_images",),
        "Public": ("public/test_images", "hidden/test_images"),
        "Private": ("hidden/test_images",),
    }[split]
    labels = {}
    for _ in range(SPLITS[split]):
        name = f"{rng.bytes(5).hex()}.png"
        shown = rng.permutation(CLASSES)[: rng.choice(3, p=COUNTS)].tolist()
        content = cv2.imencode(".png", draw(shown, rng))[1].tobytes()
        for folder in folders:
            (out / folder).mkdir(parents=True, exist_ok=True)
            (out / folder / name).write_bytes(content)
        labels[name] = " ".join(sorted(shown))
        progress.advance()
    return dict(sorted(labels.items()))


def _write(path: Path, header: tuple[str, ...], rows: Iterable[tuple[object, ...]]) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(header)
        writer.writerows(rows)

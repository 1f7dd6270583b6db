"""Generate severstal-mini: look-alike steel in the very layout and CSV forms of the original.

`generate` writes what the embedded Kaggle registers: `public/` (as fetch gives it), `hidden/`
(all test images) and `solution.csv`. One seed gives the same bytes on the same machine.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from kagflow.progress import QUIET, Progress
from kagflow.task.rle import encode
from severstal.mini_defects import annotate, draw_defect
from severstal.mini_steel import HEIGHT, WIDTH, Array, Roll, expose, make_roll, render_scene

CLASSES = (1, 2, 3, 4)
# The original: 12,568 frames, 5,902 clean; 897, 247, 5,150 and 801 rows of classes 1 to 4, and
# 425 frames with two classes (competition data page, facts of the train.csv of 2019).
CLEAN = 5902 / 12568
SHARE = {1: 897 / 6666, 2: 247 / 6666, 3: 5150 / 6666, 4: 801 / 6666}
SPLITS = {"train": 240, "Public": 40, "Private": 120}
FRAMES_A_ROLL = 8
# One frame in eight repeats the one before it, a few pixels on: the camera triggered twice.
TWIN = 1 / 8
QUALITY = 88


@dataclass(frozen=True)
class Frame:
    """Say what one photograph shows; frames with one `scene` seed are near-duplicates."""

    image_id: str
    split: str
    roll: Roll
    scene: int
    kinds: tuple[int, ...]
    twin: bool


def generate(out: Path, *, seed: int, progress: Progress | None = None) -> None:
    """Write a whole competition folder below `out` (which must not hold one yet)."""
    progress = progress or QUIET
    frames = list(plan(seed))
    for folder in ("public/train_images", "public/test_images", "hidden/test_images"):
        (out / folder).mkdir(parents=True)
    progress.start("drawing steel", len(frames), "frames")
    masks: dict[str, dict[int, str]] = {}
    with ThreadPoolExecutor(2) as pool:
        for frame, rows in zip(
            frames, pool.map(lambda one: _write_frame(out, one), frames), strict=True
        ):
            masks[frame.image_id] = rows
            progress.advance()
    progress.finish()
    _write_tables(out, frames, masks)


def plan(seed: int) -> Iterator[Frame]:
    """Yield every frame of the three splits; no roll appears in two of train and test."""
    root = np.random.default_rng([seed, 7])
    names: set[str] = set()
    for split, count in SPLITS.items():
        rng = np.random.default_rng(root.integers(2**63))
        kinds = _kinds(count, rng)
        yield from _split(split, kinds, rng, names)


def draw(frame: Frame) -> tuple[Array, dict[int, Array]]:
    """Return the photograph (H, W) uint8 and the annotated mask (H, W) uint8 0/1 of each class."""
    canvas = render_scene(frame.roll, np.random.default_rng([frame.scene, 1]))
    hand = np.random.default_rng([frame.scene, 2, int(frame.twin)])
    shift = (int(hand.integers(-1, 2)), int(hand.integers(-3, 4))) if frame.twin else (0, 0)
    masks = {}
    for kind in frame.kinds:
        extent = draw_defect(canvas, kind, np.random.default_rng([frame.scene, 3, kind]))
        masks[kind] = annotate(np.roll(extent, (shift[1], shift[0]), (0, 1)), kind, hand)
    image = expose(canvas, np.random.default_rng([frame.scene, 4]), hand, shift=shift)
    return image, {kind: mask for kind, mask in masks.items() if mask.any()}


def _kinds(count: int, rng: np.random.Generator) -> list[tuple[int, ...]]:
    """Return the classes of each frame, in the original's proportions, shuffled."""
    defective = count - round(count * CLEAN)
    rows = [kind for kind in CLASSES for _ in range(max(1, round(defective * SHARE[kind])))]
    rng.shuffle(rows)
    chosen: list[tuple[int, ...]] = [(kind,) for kind in rows[:defective]]
    spare = rows[defective:]
    for place, (first,) in enumerate(list(chosen)):
        if spare and spare[-1] != first:
            chosen[place] = tuple(sorted((first, spare.pop())))
    chosen += [()] * (count - len(chosen))
    order = rng.permutation(len(chosen))
    return [chosen[place] for place in order]


def _split(
    split: str, kinds: list[tuple[int, ...]], rng: np.random.Generator, names: set[str]
) -> Iterator[Frame]:
    """Yield the frames of one split, roll by roll; class 2 falls only on rolls with an edge."""
    worn = 0.0 if split == "train" else 1.0
    edged = [row for row in kinds if 2 in row]
    other = [row for row in kinds if 2 not in row]
    rolls = -(-len(kinds) // FRAMES_A_ROLL)
    for number in range(rolls):
        bordered = number % 5 < 2
        roll = make_roll(rng, bordered=bordered, worn=worn)
        size = len(kinds) // rolls + (number < len(kinds) % rolls)
        mine = [edged.pop() for _ in range(1) if bordered and edged]
        while len(mine) < size:
            mine.append((other or edged).pop())
        scene = 0
        for place, row in enumerate(mine):
            twin = bool(place and mine[place - 1] == row and rng.random() < TWIN * 2)
            scene = scene if twin else int(rng.integers(2**31))
            yield Frame(_name(rng, names), split, roll, scene, row, twin)


def _name(rng: np.random.Generator, names: set[str]) -> str:
    """Return an unused file name in the original's form: nine hexadecimal digits."""
    while True:
        name = f"{int(rng.integers(16**9)):09x}.jpg"
        if name not in names:
            names.add(name)
            return name


def _write_frame(out: Path, frame: Frame) -> dict[int, str]:
    """Write one JPEG where its split belongs; return the run lengths of its classes."""
    image, masks = draw(frame)
    colour = cv2.merge([image, image, image])
    done, data = cv2.imencode(".jpg", colour, [cv2.IMWRITE_JPEG_QUALITY, QUALITY])
    assert done
    places = {
        "train": ["public/train_images"],
        "Public": ["public/test_images", "hidden/test_images"],
        "Private": ["hidden/test_images"],
    }
    for place in places[frame.split]:
        (out / place / frame.image_id).write_bytes(data.tobytes())
    return {kind: encode(mask) for kind, mask in masks.items()}


def _write_tables(out: Path, frames: list[Frame], masks: dict[str, dict[int, str]]) -> None:
    """Write train.csv, both sample submissions and the solution, in the original's column forms."""
    header = ["ImageId", "ClassId", "EncodedPixels"]
    ordered = sorted(frames, key=lambda frame: frame.image_id)
    train = [f for f in ordered if f.split == "train"]
    test = [f for f in ordered if f.split != "train"]
    rows = [
        [f.image_id, kind, rle] for f in train for kind, rle in sorted(masks[f.image_id].items())
    ]
    _write_csv(out / "public/train.csv", header, rows)
    for name, shown in (("public", [f for f in test if f.split == "Public"]), ("hidden", test)):
        # The original's sample marks the first pixel of every class of every image.
        sample = [[f.image_id, kind, "1 1"] for f in shown for kind in CLASSES]
        _write_csv(out / name / "sample_submission.csv", header, sample)
    truth = [
        [f.image_id, kind, masks[f.image_id].get(kind, ""), f.split, HEIGHT, WIDTH]
        for f in test
        for kind in CLASSES
    ]
    _write_csv(out / "solution.csv", [*header, "Usage", "Height", "Width"], truth)


def _write_csv(path: Path, header: list[str], rows: list[list[object]]) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(header)
        writer.writerows(rows)

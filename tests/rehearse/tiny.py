"""A competition small enough to drive the whole road in seconds: 64x64 grey squares."""

from __future__ import annotations

import csv
from pathlib import Path

import cv2
import numpy as np

from kagflow.rehearse.facts import CompetitionFacts
from kagflow.task import rle
from kagflow.task.spec import TaskSpec

SLUG = "tiny-squares"
CLASSES = ("1", "2")
SIZE = 64


def make_facts(**changes) -> CompetitionFacts:
    values = {
        "slug": SLUG,
        "title": "Tiny Squares",
        "host": "kagflow-tests",
        "task": TaskSpec(slug=SLUG, kind="segmentation", classes=CLASSES, height=SIZE, width=SIZE),
        "rerun": "hidden",
        "inference_minutes": 1.0,
        "memory_gb": 4.0,
        "daily_submissions": 5,
        "deadline": "2030-01-01",
    }
    return CompetitionFacts(**{**values, **changes})


def make_folder(folder: Path, *, train: int = 3, public: int = 3, private: int = 4) -> Path:
    """Write {public, hidden, solution.csv}: class 1 is a bright square, class 2 a dark one."""
    rng = np.random.default_rng(0)
    rows, names = {}, iter(f"{at:04d}.png" for at in range(train + public + private))
    for part, count in (("train", train), ("public", public), ("private", private)):
        for _ in range(count):
            name = next(names)
            image, masks = _draw(rng)
            places = {
                "train": ["public/train_images"],
                "public": ["public/test_images", "hidden/test_images"],
                "private": ["hidden/test_images"],
            }[part]
            for place in places:
                (folder / place).mkdir(parents=True, exist_ok=True)
                assert cv2.imwrite(str(folder / place / name), image)
            rows[name] = (part, masks)
    _write_tables(folder, rows)
    return folder


def _draw(rng) -> tuple[np.ndarray, dict[int, np.ndarray]]:
    image = np.full((SIZE, SIZE), 128, np.uint8)
    masks = {}
    for index, grey in enumerate((255, 0)):
        if rng.random() < 0.7:
            top, left = rng.integers(0, SIZE - 16, 2)
            mask = np.zeros((SIZE, SIZE), np.uint8)
            mask[top : top + 16, left : left + 16] = 1
            image[mask > 0] = grey
            masks[index] = mask
    # A later square may cover an earlier one: the truth is what is seen.
    return image, {k: (image == (255, 0)[k]).astype(np.uint8) for k in masks}


def _write_tables(folder: Path, rows) -> None:
    def table(path, header, lines):
        with (folder / path).open("w", newline="") as file:
            writer = csv.writer(file, lineterminator="\n")
            writer.writerow(header)
            writer.writerows(lines)

    def text(masks, k):
        return rle.encode(masks[k]) if k in masks else ""

    plain = ["ImageId", "ClassId", "EncodedPixels"]
    pairs = [(n, k, p, m) for n, (p, m) in rows.items() for k in range(len(CLASSES))]
    table(
        "public/train.csv",
        plain,
        [(n, CLASSES[k], text(m, k)) for n, k, p, m in pairs if p == "train" and text(m, k)],
    )
    for tree, parts in (("public", ("public",)), ("hidden", ("public", "private"))):
        table(
            f"{tree}/sample_submission.csv",
            plain,
            [(n, CLASSES[k], "") for n, k, p, m in pairs if p in parts],
        )
    table(
        "solution.csv",
        [*plain, "Usage", "Height", "Width"],
        [
            (n, CLASSES[k], text(m, k), p.capitalize(), SIZE, SIZE)
            for n, k, p, m in pairs
            if p != "train"
        ],
    )


# Reads the images with the standard library and numpy only, so that any sandbox can run it.
_KERNEL = """
import csv, os, struct, zlib
from pathlib import Path

import numpy as np

def find(name):
    roots = ["/kaggle/input/competitions/@slug", "/kaggle/input/@slug"]
    return next(Path(r, name) for r in roots if Path(r, name).exists())

def read_png(path):
    data, at, body = path.read_bytes(), 8, b""
    while at < len(data):
        size, kind = struct.unpack(">I4s", data[at:at + 8])
        if kind == b"IHDR":
            width, height = struct.unpack(">II", data[at + 8:at + 16])
        if kind == b"IDAT":
            body += data[at + 8:at + 8 + size]
        at += 12 + size
    raw, out = zlib.decompress(body), np.zeros((height, width), np.int64)
    above = np.zeros(width, np.int64)
    for y in range(height):
        line = np.frombuffer(raw[y * (width + 1) + 1:(y + 1) * (width + 1)], np.uint8).astype(int)
        above = unfilter(raw[y * (width + 1)], line, above)
        out[y] = above
    return out

def unfilter(kind, line, above):
    out = np.zeros_like(line)
    for x in range(len(line)):
        a = out[x - 1] if x else 0
        b, c = above[x], above[x - 1] if x else 0
        p = a + b - c
        paeth = min((abs(p - a), 0, a), (abs(p - b), 1, b), (abs(p - c), 2, c))[2]
        out[x] = (line[x] + (0, a, b, (a + b) // 2, paeth)[kind]) % 256
    return out

def encode(mask):
    flat = np.concatenate([[0], mask.T.reshape(-1), [0]])
    edges = np.flatnonzero(np.diff(flat)) + 1
    edges[1::2] -= edges[::2]
    return " ".join(map(str, edges))

rerun = os.environ.get("KAGGLE_IS_COMPETITION_RERUN", "")
print("rerun:", bool(rerun), flush=True)
with find("sample_submission.csv").open() as file:
    rows = list(csv.DictReader(file))
with open("/kaggle/working/submission.csv", "w", newline="") as file:
    out = csv.writer(file, lineterminator="\\n")
    out.writerow(["ImageId", "ClassId", "EncodedPixels"])
    for row in rows:
        image = read_png(find("test_images") / row["ImageId"])
        mask = (image == {"1": 255, "2": 0}[row["ClassId"]]).astype(int)
        out.writerow([row["ImageId"], row["ClassId"], encode(mask)])
Path("/kaggle/working/seen.txt").write_text(str(len(rows)) + "\\n")
print("done", flush=True)
"""


def kernel(slug: str = SLUG) -> str:
    """Return the source of a kernel that scores 1.0."""
    return _KERNEL.replace("@slug", slug)

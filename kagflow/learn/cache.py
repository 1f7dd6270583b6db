"""Images and masks decoded once, at the working size, in two flat files that are mapped."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from kagflow import durable
from kagflow.errors import DataError, LocalError
from kagflow.infer.image import read_grey, resize
from kagflow.progress import QUIET, Progress
from kagflow.task import rle
from kagflow.task.index import image_files
from kagflow.task.spec import TaskSpec

SCHEMA = 1
# One int64 row an image: height, width at the working size; where its image and its mask start;
# mask planes (0 empty, 1 label map, C channels where classes overlap); its own height, width.
COLUMNS = 7

Pixels = npt.NDArray[np.uint8]
Labels = Mapping[str, Mapping[int, str]]
Size = tuple[int, int] | None


@dataclass(frozen=True)
class Cache:
    """Read decoded images by row number; `ids` are in the order of the image index."""

    ids: tuple[str, ...]
    classes: int
    rows: npt.NDArray[np.int64]
    images: Pixels
    masks: Pixels

    def image(self, row: int) -> Pixels:
        """Return image `(h, w)` uint8, a read-only view."""
        height, width, start = (int(value) for value in self.rows[row, :3])
        return self.images[start : start + height * width].reshape(height, width)

    def own_size(self, row: int) -> tuple[int, int]:
        """Return (height, width) of the image file."""
        return int(self.rows[row, 5]), int(self.rows[row, 6])

    def mask(self, row: int) -> Pixels:
        """Return a label map `(h, w)`, class + 1 or 0, or channels `(h, w, C)` of 0 and 1."""
        height, width, _, start, planes = (int(value) for value in self.rows[row, :5])
        if planes == 0:
            return np.zeros((height, width), np.uint8)
        flat = self.masks[start : start + height * width * planes]
        return flat.reshape((height, width) if planes == 1 else (height, width, planes))


@dataclass(frozen=True)
class Part:
    """Name the images that count, None for all, and what is true of them.

    `images` is their folder, None for that of the training images.
    """

    only: Collection[str] | None
    labels: Labels
    images: Path | None = None

    def files(self, training: Path) -> list[Path]:
        """Return the image files that count; `training` is the folder of the training images."""
        files = image_files(self.images or training)
        return [file for file in files if self.only is None or file.name in self.only]


def open_cache(
    data: Path,
    spec: TaskSpec,
    size: Size,
    *,
    part: Part,
    folder: Path,
    progress: Progress = QUIET,
) -> Cache:
    """Return the cache of a competition's training images, made on first use under `folder`.

    Raises DataError naming the file that cannot be decoded.
    """
    images = part.files(data / spec.train_images)
    final = folder / _key(data, spec, size, part, images)
    if not final.is_dir():
        _check_space(folder, size, len(images))
        try:
            with durable.staging(final) as beside:
                _Build(spec, size, part.labels).write(beside, images, progress)
        except OSError:
            # Two trainings may start at once; the key names the content, so the first one's serves.
            if not final.is_dir():
                raise
    return _read(final, len(spec.classes))


def is_cached(data: Path, spec: TaskSpec, size: Size, *, part: Part, folder: Path) -> bool:
    """Tell whether `open_cache` would find what it returns."""
    return place(data, spec, size, part=part, folder=folder).is_dir()


def place(data: Path, spec: TaskSpec, size: Size, *, part: Part, folder: Path) -> Path:
    """Return where under `folder` decoded images lie, or would."""
    return folder / _key(data, spec, size, part, part.files(data / spec.train_images))


@dataclass(frozen=True)
class _Build:
    spec: TaskSpec
    size: Size
    labels: Labels

    def write(self, folder: Path, files: Sequence[Path], progress: Progress) -> None:
        rows = np.zeros((len(files), COLUMNS), np.int64)
        progress.start("decode images", len(files), "images")
        with (folder / "images.bin").open("wb") as images, (folder / "masks.bin").open("wb") as out:
            for number, file in enumerate(files):
                image = read_grey(file)
                mask, small = self._mask(file.name, image.shape), resize(image, self.size)
                planes = 0 if mask is None else mask.size // small.size
                starts = (images.tell(), out.tell())
                rows[number] = (*small.shape, *starts, planes, *image.shape)
                images.write(small.tobytes())
                out.write(b"" if mask is None else mask.tobytes())
                progress.advance()
        progress.finish()
        np.save(folder / "rows.npy", rows)
        durable.write_json(folder / "ids.json", [file.name for file in files])

    def _mask(self, image_id: str, shape: tuple[int, ...]) -> Pixels | None:
        runs = self.labels.get(image_id, {})
        if self.spec.kind != "segmentation" or not runs:
            return None
        try:
            return decode_mask(runs, shape, len(self.spec.classes), self.size)
        except DataError as error:
            raise DataError(f"{image_id}: {error.message}", hint=error.hint) from None


def decode_mask(
    runs: Mapping[int, str], shape: tuple[int, ...], classes: int, size: Size
) -> Pixels:
    """Return run lengths `{class: text}` as a label map, or as channels where classes overlap.

    `shape` is the image's own (H, W); the result has the working `size`.
    """
    height, width = shape
    channels = np.zeros((height, width, classes), np.uint8)
    for index, text in runs.items():
        channels[..., index] = rle.decode(text, height, width)
    if size is not None and (height, width) != tuple(size):
        # Nearest with aligned pixel centres: classes must not blend into each other.
        channels = cv2.resize(channels, (size[1], size[0]), interpolation=cv2.INTER_NEAREST_EXACT)
        channels = channels.reshape(*size, classes)
    if (channels.sum(axis=2) > 1).any():
        return channels
    numbers = np.arange(1, classes + 1, dtype=np.uint8)
    label_map: Pixels = (channels * numbers).sum(axis=2, dtype=np.uint8)
    return label_map


def data_hash(data: Path) -> str:
    """Return the SHA-256 of the data's manifest, which lists the hash of every file."""
    return durable.sha256_file(data / "manifest.json")


def _key(data: Path, spec: TaskSpec, size: Size, part: Part, images: Sequence[Path]) -> str:
    facts: dict[str, Any] = {
        "images": [image.name for image in images],
        "schema": SCHEMA,
        "data": data_hash(data),
        "labels": durable.sha256_file(data / spec.train_csv),
        "classes": spec.classes,
        "size": size,
    }
    if part.images is not None:
        facts["folder"] = part.images.name
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:16]


def _check_space(folder: Path, size: Size, count: int) -> None:
    if size is None:
        return
    folder.mkdir(parents=True, exist_ok=True)
    need, free = 2 * count * size[0] * size[1], shutil.disk_usage(folder).free
    if free < 1.2 * need:
        raise LocalError(
            f"{count} decoded images need {need / 1e9:.1f} GB, {free / 1e9:.1f} GB are free",
            hint="free disk space, or choose a smaller size in the recipe",
        )


def _read(folder: Path, classes: int) -> Cache:
    def mapped(name: str) -> Pixels:
        path = folder / name
        # An empty file cannot be mapped: no image may have a mask.
        return np.memmap(path, np.uint8, "r") if path.stat().st_size else np.empty(0, np.uint8)

    return Cache(
        ids=tuple(json.loads((folder / "ids.json").read_text())),
        classes=classes,
        rows=np.load(folder / "rows.npy", allow_pickle=False),
        images=mapped("images.bin"),
        masks=mapped("masks.bin"),
    )

"""The out-of-fold store: every validation image's probabilities, small and readable at random.

Masks are kept at working size as uint8, q = round(255 p), where p is 4/255 or more: within 1/510.
What is below is kept as 0, an error of less than 4/255 where no threshold ever lies: the haze over
clean images would take two thirds of the disk. An image is one zlib stream in maps.bin of the
differences from row to row; index.csv holds the offsets. Labels are text.
"""

from __future__ import annotations

import csv
import io
import os
import zlib
from contextlib import ExitStack
from pathlib import Path
from typing import Any, BinaryIO, Self

import numpy as np
from numpy.typing import NDArray

from kagflow import durable
from kagflow.errors import DataError, LocalError
from kagflow.infer.image import resize_probs
from kagflow.infer.postprocess import FAINT

INDEX = ("image_id", "offset", "length", "height", "width", "h", "w")
MAPS, EARLIER = "maps.bin", "probs.bin"
FLOOR = round(255 * float(FAINT))  # of 255
# Measured on 1.6 million pixels a map (bench/oof_size.py, and an early model's): run-length coding
# of rows' differences takes 5 ms and 54 kB, plain zlib 12 ms and 178 kB, PNG 27 ms and 52 kB.
_ZLIB = (1, zlib.DEFLATED, zlib.MAX_WBITS, zlib.DEF_MEM_LEVEL, zlib.Z_RLE)


class OofWriter:
    """Write a store that appears whole on `close`, or not at all.

    `predicts` is mask or label, `classes` the number of classes. Raises LocalError where the
    store is there already: a finished one is never overwritten.
    """

    def __init__(self, folder: Path, predicts: str, classes: int) -> None:
        if folder.exists():
            raise LocalError(f"{folder} is there already", hint="train under another name=")
        self.predicts, self.classes = predicts, classes
        self._stack = ExitStack()
        self._staging = self._stack.enter_context(durable.staging(folder))
        self._rows: list[list[Any]] = []
        self._seen: set[str] = set()
        self._probs: BinaryIO | None = None
        if predicts == "mask":
            self._probs = self._stack.enter_context((self._staging / MAPS).open("wb"))

    def add(self, image_id: str, probs: NDArray[np.float32], height: int, width: int) -> None:
        """Take one image's probabilities in 0..1: (C, h, w), or (C,) for labels.

        `height` and `width` are the image's own, to which masks are resized when read.
        """
        if image_id in self._seen:
            raise DataError(f"{image_id} was predicted twice out of fold")
        axes = 3 if self._probs else 1
        if probs.ndim != axes or probs.shape[0] != self.classes:
            raise DataError(f"{image_id}: probabilities {probs.shape} for {self.classes} classes")
        if np.isnan(probs).any():
            raise DataError(
                f"{image_id}: the model predicts NaN",
                hint="Train anew with a lower lr or precision=fp32.",
            )
        self._seen.add(image_id)
        if self._probs is None:
            self._rows.append([image_id, *(f"{value:.9g}" for value in probs.tolist())])
            return
        packed = pack(quantise(probs))
        offset = self._probs.tell()
        self._probs.write(packed)
        self._rows.append([image_id, offset, len(packed), height, width, *probs.shape[1:]])

    @property
    def image_ids(self) -> tuple[str, ...]:
        """Image ids in the order in which they were added."""
        return tuple(str(row[0]) for row in self._rows)

    def close(self) -> None:
        """Put the store in place."""
        names = INDEX if self._probs else ("image_id", *(f"p{i}" for i in range(self.classes)))
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(names)
        writer.writerows(self._rows)
        name = "index.csv" if self._probs else "labels.csv"
        durable.write_text(self._staging / name, text.getvalue())
        self._stack.close()

    def __enter__(self) -> Self:
        """Start collecting."""
        return self

    def __exit__(self, kind: type[BaseException] | None, *rest: Any) -> None:
        """Put the store in place, or remove it where an exception passes."""
        if kind is None:
            self.close()
        else:
            self._stack.__exit__(kind, *rest)


class OofReader:
    """Read a store; safe under threads. Raises DataError where it is missing or damaged."""

    def __init__(self, folder: Path) -> None:
        self.folder, self._file = folder, -1
        self.predicts = "label" if (folder / "labels.csv").is_file() else "mask"
        path = folder / ("labels.csv" if self.predicts == "label" else "index.csv")
        try:
            with path.open(newline="", encoding="utf-8") as file:
                _, *rows = csv.reader(file)
        except (OSError, ValueError):
            raise DataError(
                f"{folder} is no out-of-fold store", hint="train the fold anew"
            ) from None
        self._rows = {row[0]: row[1:] for row in rows}
        # Stores of before hold plain maps.
        self._earlier = (folder / EARLIER).is_file()
        if self.predicts == "mask":
            self._file = os.open(folder / (EARLIER if self._earlier else MAPS), os.O_RDONLY)

    @property
    def image_ids(self) -> tuple[str, ...]:
        """Image ids in the order in which they were added."""
        return tuple(self._rows)

    def size(self, image_id: str) -> tuple[int, int]:
        """Return a mask image's own (height, width)."""
        return int(self._row(image_id)[2]), int(self._row(image_id)[3])

    def quantised(self, image_id: str) -> NDArray[np.uint8]:
        """Return the stored map at working size: (C, h, w) uint8, p = q / 255."""
        offset, length, _, _, h, w = (int(cell) for cell in self._row(image_id))
        try:
            raw = zlib.decompress(os.pread(self._file, length, offset))
            stored = np.frombuffer(raw, np.uint8).reshape(-1, h, w)
        except (zlib.error, ValueError):
            raise DataError(f"{self.folder}: the maps are damaged at {image_id}") from None
        return stored if self._earlier else _summed(stored)

    def mask(self, image_id: str) -> NDArray[np.float32]:
        """Return mask probabilities at the image's own size: (C, H, W) float32."""
        probs = self.quantised(image_id).astype(np.float32)
        probs /= 255
        return resize_probs(probs, self.size(image_id))

    def label(self, image_id: str) -> NDArray[np.float32]:
        """Return label probabilities: (C,) float32."""
        return np.array(self._row(image_id), np.float32)

    def close(self) -> None:
        """Let go of the file."""
        if self._file >= 0:
            os.close(self._file)
            self._file = -1

    def __enter__(self) -> Self:
        """Read as a context."""
        return self

    def __exit__(self, *_: object) -> None:
        """Let go of the file."""
        self.close()

    def __del__(self) -> None:
        self.close()

    def _row(self, image_id: str) -> list[str]:
        if image_id not in self._rows:
            raise DataError(f"{self.folder} holds no prediction of {image_id}")
        return self._rows[image_id]


def _summed(differences: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Add up rows of differences (C, h, w): what `np.cumsum` does, in half its time, row by row."""
    out = np.empty_like(differences)
    out[:, :1] = differences[:, :1]
    for row in range(1, differences.shape[1]):
        np.add(out[:, row - 1], differences[:, row], out=out[:, row])
    return out


def quantise(probs: NDArray[np.float32]) -> NDArray[np.uint8]:
    """Round probabilities in 0..1 to 1/255, what is below 4/255 to 0: uint8."""
    rounded = np.asarray(np.rint(np.clip(probs, 0, 1) * 255), np.uint8)
    rounded[rounded < FLOOR] = 0
    return rounded


def pack(quantised: NDArray[np.uint8]) -> bytes:
    """Compress maps (C, h, w) uint8: each row as its difference from the one above."""
    differences = np.diff(quantised, axis=1, prepend=np.uint8(0))
    stream = zlib.compressobj(*_ZLIB)
    return stream.compress(differences.tobytes()) + stream.flush()

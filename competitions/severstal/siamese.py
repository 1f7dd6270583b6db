"""Pair every image with a defect-free frame of the same look. Travels to Kaggle: numpy and cv2.

A recipe's `assets` keeps a few clean training frames (`references`); its `input` (`Paired`) finds
the one that looks most like the image. A look is sixteen numbers: mean and standard deviation of
grey in two rows of four cells, so that black borders and light that falls off to one side count.
"""

from __future__ import annotations

import io
from pathlib import Path

import cv2
import numpy as np

from kagflow.errors import DataError

CELLS = (2, 4)
# Distances among more clean frames than this would take gigabytes.
CONSIDERED = 1000
FLIPS = ((1, 1), (1, -1), (-1, 1), (-1, -1))


def references(images, *, keep: int = 16) -> bytes:
    """Return an .npz of `keep` clean training frames: `frames` (K, H, W) uint8 and their `ids`.

    Chosen greedily so that the mean distance of clean frames to the nearest kept look is least;
    the same images give the same bytes. Raises DataError where every image shows a defect.
    """
    clean = np.flatnonzero(~images.labels.any(axis=1))
    if not len(clean):
        raise DataError("no defect-free image to compare others with")
    clean = clean[np.linspace(0, len(clean) - 1, min(len(clean), CONSIDERED)).astype(int)]
    sizes, counts = np.unique([images.image(i).shape for i in clean], axis=0, return_counts=True)
    height, width = (int(side) for side in sizes[counts.argmax()])
    looks = np.array([look(images.image(index)).ravel() for index in clean])
    apart = np.abs(looks[:, None] - looks[None]).sum(-1)
    best, chosen = np.full(len(clean), np.inf), []
    while len(chosen) < min(keep, len(clean)):
        cost = np.minimum(best[:, None], apart).sum(0)
        cost[chosen] = np.inf
        chosen.append(int(cost.argmin()))
        best = np.minimum(best, apart[:, chosen[-1]])
    frames = [cv2.resize(images.image(index), (width, height)) for index in clean[chosen]]
    file = io.BytesIO()
    np.savez(file, frames=np.array(frames), ids=np.array([images.ids[i] for i in clean[chosen]]))
    return file.getvalue()


def look(image: np.ndarray) -> np.ndarray:
    """Return mean and standard deviation of the cells of (h, w) grey: (2, rows, columns)."""
    grey = image.astype(np.float32)
    cells = CELLS[::-1]
    mean = cv2.resize(grey, cells, interpolation=cv2.INTER_AREA)
    square = cv2.resize(grey * grey, cells, interpolation=cv2.INTER_AREA)
    return np.stack([mean, np.sqrt(np.maximum(square - mean * mean, 0))])


class Paired:
    """Turn (h, w) uint8 into image and reference: (2, h, w) float32, (x / 255 - mean) / std.

    A crop is compared with windows of its own size, mirrored too, since training flips images.
    An image that is a reference itself gets another one: against itself it would show nothing.
    """

    def __init__(self, *, mean: float = 0.5, std: float = 0.5) -> None:
        self.mean, self.std = mean, std
        self.kept: dict[Path, tuple[np.ndarray, np.ndarray]] = {}
        self.windows: dict[tuple[Path, tuple[int, ...]], Windows] = {}

    def __call__(self, image: np.ndarray, metadata) -> np.ndarray:
        """Return the pair for an image whose metadata hold the asset `references`."""
        path = metadata["assets"]["references"]
        if path not in self.kept:
            with np.load(path, allow_pickle=False) as asset:
                self.kept[path] = asset["frames"], asset["ids"]
        if (path, image.shape) not in self.windows:
            self.windows[path, image.shape] = Windows(*self.kept[path], image.shape)
        reference = self.windows[path, image.shape].nearest(image, metadata["image_id"])
        pair = np.stack([image, reference]).astype(np.float32)
        return (pair / 255 - self.mean) / self.std


class Windows:
    """Every window of one size in the kept frames, by its look."""

    def __init__(self, frames: np.ndarray, ids: np.ndarray, size: tuple[int, ...]) -> None:
        height, width = (max(pair) for pair in zip(size, frames.shape[1:], strict=True))
        if (height, width) != frames.shape[1:]:
            frames = np.array([cv2.resize(one, (width, height)) for one in frames])
        self.frames, self.ids, self.size = frames, ids, size
        self.places = [
            (frame, top, left)
            for frame in range(len(frames))
            for top in _starts(height, size[0])
            for left in _starts(width, size[1])
        ]
        plain = np.array([look(self.cut(place, (1, 1))) for place in self.places])
        # Mirroring a window mirrors its cells.
        self.looks = np.stack([plain[:, :, ::down, ::right] for down, right in FLIPS])

    def cut(self, place: tuple[int, int, int], flip: tuple[int, int]) -> np.ndarray:
        """Return the window at (frame, top, left), mirrored where `flip` says -1."""
        frame, top, left = place
        window = self.frames[frame, top : top + self.size[0], left : left + self.size[1]]
        return window[:: flip[0], :: flip[1]]

    def nearest(self, image: np.ndarray, image_id: str) -> np.ndarray:
        """Return the window of another frame whose look differs least in sum."""
        apart = np.abs(self.looks - look(image)).sum(axis=(2, 3, 4))
        own = np.array([self.ids[frame] == image_id for frame, _, _ in self.places])
        if not own.all():
            apart[:, own] = np.inf
        flip, place = np.unravel_index(apart.argmin(), apart.shape)
        return self.cut(self.places[place], FLIPS[flip])


def _starts(whole: int, part: int) -> list[int]:
    """Return starts of windows that overlap by half at least and reach the end."""
    count = 1 + -(-(whole - part) // max(1, part // 2))
    return np.linspace(0, whole - part, count).astype(int).tolist()

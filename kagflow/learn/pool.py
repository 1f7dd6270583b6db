"""Members whose out-of-fold predictions are judged together: the images they share, read once.

Most maps of most images hold nothing that any threshold could keep, so a class's maps are looked
at only where some member reaches the lowest threshold; a mean of members cannot reach it elsewhere.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property, partial
from typing import NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

from kagflow.errors import DataError
from kagflow.infer.image import resize_probs
from kagflow.learn.counts import FLOOR, LEVELS, Box, box_of
from kagflow.learn.oof import OofReader
from kagflow.progress import Progress
from kagflow.task import rle
from kagflow.task.spec import TaskSpec

Truth = Mapping[str, Mapping[int, str]]
Store = dict[str, OofReader]
T = TypeVar("T")
# Images handed out at once to each thread: enough to keep it busy, few enough to hold.
_AHEAD = 4


class Active(NamedTuple):
    """One class of one image where some member reaches the lowest threshold.

    `planes` (M, h, w) float32 are the members' probabilities inside a box of the image, `truth`
    (h, w) uint8 is 0 or 1, None where the class is absent.
    """

    number: int
    planes: NDArray[np.float32]
    truth: NDArray[np.uint8] | None


@dataclass(frozen=True)
class Pool:
    """Hold N images that all members predict, M members for masks and L for labels.

    `true` (N, C) are pixels, for classification 0 or 1; `labels` (L, N, C) probabilities.
    """

    spec: TaskSpec
    names: tuple[str, ...]
    clusters: NDArray[np.int64]
    true: NDArray[np.int64]
    truth: Truth
    masks: tuple[Store, ...]
    labels: NDArray[np.float32]

    @cached_property
    def pixels(self) -> int:
        """Usual size of an image; 1 where there are no masks."""
        if not self.masks:
            return 1
        return int(np.median([np.prod(self.masks[0][name].size(name)) for name in self.names]))

    def each(
        self, job: Callable[[int, list[Active]], T], progress: Progress, label: str
    ) -> Iterator[T]:
        """Yield what `job(number, active classes)` returns for every image, in order."""
        progress.start(label, len(self.names), "images")
        with ThreadPoolExecutor(os.cpu_count() or 1) as pool:
            step = _AHEAD * (os.cpu_count() or 1)
            for start in range(0, len(self.names), step):
                numbers = range(start, min(start + step, len(self.names)))
                for found in pool.map(partial(self._one, job), numbers):
                    yield found
                    progress.advance()
        progress.finish()

    def active(self, number: int) -> list[Active]:
        """Read an image's maps and cut out what could be kept, class by class."""
        name = self.names[number]
        stored = [store[name].quantised(name) for store in self.masks]
        size = self.masks[0][name].size(name)
        found = []
        for index in range(len(self.spec.classes)):
            cut = _cut([maps[index] for maps in stored], size)
            if cut is None:
                continue
            planes, box = cut
            text = self.truth.get(name, {}).get(index)
            truth = None if text is None else rle.decode(text, *size)[box]
            found.append(Active(index, planes, truth))
        return found

    def _one(self, job: Callable[[int, list[Active]], T], number: int) -> T:
        return job(number, self.active(number))


def open_pool(
    members: Sequence[Store], truth: Truth, spec: TaskSpec, clusters: Mapping[str, int]
) -> Pool:
    """Join members on the images that all of them predict.

    Raises DataError where there is no such image, for probabilities that are none, and for
    another number of classes.
    """
    names = sorted(set.intersection(*(set(store) for store in members)) & set(clusters))
    if not names:
        raise DataError(
            "there is no image that all members predict out of fold",
            hint="Train the same folds of every run, or name the runs that share a fold.",
        )
    kinds = [next(iter(store.values())).predicts for store in members]
    for store, kind in zip(members, kinds, strict=True):
        _check_classes(store[names[0]], names[0], kind, spec)
    labels = [
        [_label(store[name], name) for name in names]
        for store, kind in zip(members, kinds, strict=True)
        if kind == "label"
    ]
    return Pool(
        spec=spec,
        names=tuple(names),
        clusters=np.array([clusters[name] for name in names], np.int64),
        true=np.array([_true(truth.get(name, {}), spec) for name in names], np.int64),
        truth=truth,
        masks=tuple(store for store, kind in zip(members, kinds, strict=True) if kind == "mask"),
        labels=np.array(labels, np.float32).reshape(-1, len(names), len(spec.classes)),
    )


def _cut(
    planes: Sequence[NDArray[np.uint8]], size: tuple[int, int]
) -> tuple[NDArray[np.float32], Box] | None:
    """Cut stored planes to the box where one reaches the lowest threshold, at the image's size."""
    if any(plane.shape != size for plane in planes):
        if max(int(plane.max()) for plane in planes) < FLOOR:
            return None
        probs = [resize_probs((plane / np.float32(255))[None], size)[0] for plane in planes]
        box = box_of(np.maximum.reduce(probs), FLOOR / LEVELS)
        return None if box is None else (np.stack([each[box] for each in probs]), box)
    # 24/255 is the least stored value that reaches 24/256.
    box = box_of(planes[0] if len(planes) == 1 else np.maximum.reduce(planes), FLOOR)
    return (
        None if box is None else (np.stack([each[box] for each in planes]) / np.float32(255), box)
    )


def _label(reader: OofReader, name: str) -> NDArray[np.float32]:
    probs = reader.label(name)
    # Written so that NaN fails too.
    if not ((probs >= 0) & (probs <= 1)).all():
        raise DataError(
            f"{reader.folder}: {name} has probabilities {probs.tolist()}",
            hint="Train the fold anew under another name=, or leave the run out.",
        )
    return np.asarray(probs, np.float32)


def _check_classes(reader: OofReader, name: str, kind: str, spec: TaskSpec) -> None:
    held = len(reader.label(name) if kind == "label" else reader.quantised(name))
    if held != len(spec.classes):
        raise DataError(
            f"{reader.folder} predicts {held} classes of {len(spec.classes)}",
            hint="The competition's classes were changed: train anew under another name=.",
        )


def _true(found: Mapping[int, str], spec: TaskSpec) -> list[int]:
    masks = spec.kind == "segmentation"
    return [
        (rle.area(found[c]) if masks else 1) if c in found else 0 for c in range(len(spec.classes))
    ]

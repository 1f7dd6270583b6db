"""Images with truth and prediction and what they cost, instead of looking by eye."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from kagflow.learn.perimage import PerImage, from_counts, images_of
from kagflow.progress import QUIET, Progress
from kagflow.report import errors
from kagflow.report.contours import outline
from kagflow.report.judge import Judge, Seen
from kagflow.report.pictures import LONGEST, Picture, read_picture
from kagflow.task import metric, rle
from kagflow.task.folds import Folds

Truth = Mapping[str, Mapping[int, str]]


@dataclass(frozen=True)
class Shape:
    """One class's outline in an image; `at` (x, y) is where its name can stand."""

    label: str
    path: str
    at: tuple[int, int]
    left_out: int


@dataclass(frozen=True)
class Unit:
    """One class in one image where something is there or predicted; areas are pixels.

    `loss` is what it takes off the score of all images.
    """

    at: int
    label: str
    kind: str
    score: float
    loss: float
    true: int
    predicted: int


@dataclass(frozen=True)
class Card:
    """One image of the gallery; `mates` counts the shown images of its duplicate cluster."""

    number: int
    image_id: str
    why: tuple[str, ...]
    fold: int
    cluster: int
    mates: int
    loss: float
    units: tuple[Unit, ...]
    picture: Picture | None
    truth: tuple[Shape, ...]
    predicted: tuple[Shape, ...]


@dataclass(frozen=True)
class Source:
    """Where the gallery comes from; `images` is the folder of the training images."""

    judge: Judge
    truth: Truth
    folds: Folds
    images: Path


class _Drawn(NamedTuple):
    picture: Picture | None
    truth: tuple[Shape, ...]
    predicted: tuple[Shape, ...]
    counts: NDArray[np.int64]


def make_cards(
    source: Source,
    why: Mapping[str, tuple[str, ...]],
    *,
    whole: int,
    bytes_each: int,
    progress: Progress | None = None,
) -> list[Card]:
    """Draw the chosen images, {image id: why}, and count anew what is seen in them.

    What a card says is of the rules with which it was drawn. `whole` is how many values the
    score is the mean of, `bytes_each` how much of the page a picture may take.
    """
    judge = source.judge
    progress = progress or QUIET
    progress.start("draw the gallery", len(why), "images")
    drawn: list[_Drawn] = []
    with ThreadPoolExecutor(os.cpu_count() or 1) as pool:
        one = partial(_draw, source, most=bytes_each)
        for each in pool.map(one, why):
            drawn.append(each)
            progress.advance()
    progress.finish()
    names = list(why)
    counts = np.stack([each.counts for each in drawn], axis=1)
    seen = from_counts(
        judge.name,
        judge.spec.classes,
        images_of(names, source.folds),
        counts,
        metric.load(judge.spec),
    )
    return _cards(seen, drawn, why, whole=whole)


def _cards(
    seen: PerImage,
    drawn: Sequence[_Drawn],
    why: Mapping[str, tuple[str, ...]],
    *,
    whole: int,
) -> list[Card]:
    lost = errors.losses(seen) * (seen.scores.size / whole)
    named = errors.kinds(seen)
    mates = Counter(seen.clusters.tolist())
    cards = [
        Card(
            number=0,
            image_id=image_id,
            why=why[image_id],
            fold=int(seen.folds[at]),
            cluster=int(seen.clusters[at]),
            mates=mates[int(seen.clusters[at])],
            loss=float(lost[at].sum()),
            units=_units(seen, at, lost[at], named[at]),
            picture=each.picture,
            truth=each.truth,
            predicted=each.predicted,
        )
        for at, (image_id, each) in enumerate(zip(seen.image_ids, drawn, strict=True))
    ]
    return sorted(cards, key=lambda card: (-card.loss, card.image_id))


def _units(
    seen: PerImage, at: int, lost: NDArray[np.float64], named: NDArray[np.str_]
) -> tuple[Unit, ...]:
    by_class = seen.scores.shape == seen.true.shape
    return tuple(
        Unit(
            at=c,
            label=label,
            kind=str(named[c]),
            score=float(seen.scores[at, c if by_class else 0]),
            loss=float(lost[c]),
            true=int(seen.true[at, c]),
            predicted=int(seen.predicted[at, c]),
        )
        for c, label in enumerate(seen.classes)
        if named[c] != errors.CLEAN
    )


def _draw(source: Source, image_id: str, *, most: int) -> _Drawn:
    judge, true = source.judge, source.truth.get(image_id, {})
    seen = judge.look(image_id)
    picture = read_picture(source.images / image_id, most=most)
    if seen.masks is None:
        return _Drawn(picture, (), (), _count_labels(seen, true))
    shape = seen.masks.shape[1:]
    step = max(max(shape) / LONGEST, 1.0)
    wanted = {at: rle.decode(text, *shape) > 0 for at, text in true.items()}
    counts = np.zeros((3, len(judge.spec.classes)), np.int64)
    for at, mask in enumerate(seen.masks):
        real = wanted.get(at)
        counts[1, at] = np.count_nonzero(mask)
        if real is not None:
            counts[0, at], counts[2, at] = np.count_nonzero(real), np.count_nonzero(mask & real)
    found = {at: mask for at, mask in enumerate(seen.masks) if counts[1, at]}
    return _Drawn(picture, _shapes(wanted, judge, step), _shapes(found, judge, step), counts)


def _shapes(masks: Mapping[int, NDArray[np.bool_]], judge: Judge, step: float) -> tuple[Shape, ...]:
    shapes = []
    for at in sorted(masks):
        traced = outline(masks[at], step=step)
        if traced is not None:
            label = judge.spec.classes[at]
            shapes.append(Shape(label, traced.path, traced.top, traced.left_out))
    return tuple(shapes)


def _count_labels(seen: Seen, true: Mapping[int, str]) -> NDArray[np.int64]:
    counts = np.zeros((3, len(seen.found)), np.int64)
    counts[0, list(true)] = 1
    counts[1] = seen.found
    counts[2] = counts[0] * counts[1]
    return counts

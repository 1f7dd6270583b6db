"""What out-of-fold predictions say, in counts: one pass over the maps, then any grid is cheap."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from kagflow.errors import DataError
from kagflow.infer.postprocess import ClassRule
from kagflow.learn.blend import Blend
from kagflow.learn.counts import COMPONENT_THRESHOLDS, THRESHOLDS, area_grid, scaled
from kagflow.learn.counts import components as components_of
from kagflow.learn.counts import totals as totals_of
from kagflow.learn.oof import OofReader
from kagflow.learn.pool import Active, Pool, Store, Truth, open_pool
from kagflow.progress import QUIET, Progress
from kagflow.task import rle
from kagflow.task.folds import Folds
from kagflow.task.spec import TaskSpec

__all__ = [
    "THRESHOLDS", "Components", "Evidence", "Store", "Truth", "count_blends", "count_image",
    "from_labels",
    "gather", "open_member",
]  # fmt: skip

_NO_PIECES = np.zeros((0, 2, len(COMPONENT_THRESHOLDS), 1), np.int32)
_RETRAIN = "The folds were changed between trainings: train them under another name=."


class Components(NamedTuple):
    """Count one class's pixels in components of each area A or more, at thresholds (T,).

    `predicted` and `intersection` (n, T, A) are of the n images that are active for the class.
    """

    thresholds: NDArray[np.float32]
    predicted: NDArray[np.int32]
    intersection: NDArray[np.int32]


@dataclass(frozen=True)
class Evidence:
    """Hold counts of N images, C classes and T thresholds.

    `true` (N, C), `predicted` and `intersection` (N, C, T) are pixels, for classification 0 or 1;
    `gate` (N, C) float32 is the label members' mean probability, None without any; `clusters` (N,)
    numbers the groups of near-duplicates; `pixels` is an image's usual size; `components` has one
    entry a class, None where there are none to drop.
    """

    image_ids: tuple[str, ...]
    clusters: NDArray[np.int64]
    true: NDArray[np.int64]
    predicted: NDArray[Any]
    intersection: NDArray[Any]
    gate: NDArray[np.float32] | None
    pixels: int
    thresholds: NDArray[np.float32] = field(default_factory=lambda: THRESHOLDS)
    components: tuple[Components, ...] | None = None

    @property
    def areas(self) -> NDArray[np.int64]:
        """Minimum areas that are tried, in pixels, from 0."""
        return area_grid(self.pixels)

    def active(self, index: int) -> NDArray[np.int64]:
        """Return the images (n,) of whose class anything reaches the lowest threshold."""
        return np.flatnonzero(self.predicted[:, index].any(axis=1))

    def under(self, rule: ClassRule, index: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Count a class under a rule of the grids: intersection and predicted, (N,) each."""
        at = _place(self.thresholds, rule.threshold)
        both, predicted = self.intersection[:, index, at], self.predicted[:, index, at]
        if rule.min_component > 1:
            both, predicted = self._without_small(rule, index)
        counted = predicted
        if rule.seed:
            counted = self.predicted[:, index, _place(self.thresholds, rule.seed)]
        growth: Any = 1.0
        keep = np.ones(len(self.true), bool)
        if self.gate is not None:
            seen = self.gate[:, index]
            growth = rule.soft - (rule.soft - 1) * seen.astype(np.float64)
            keep = seen >= np.float32(rule.gate)
        keep = keep & (counted / growth >= rule.min_area)
        return both * keep, predicted * keep

    def _without_small(
        self, rule: ClassRule, index: int
    ) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        assert self.components is not None
        pieces = self.components[index]
        at = _place(pieces.thresholds, rule.threshold)
        area = int(np.flatnonzero(self.areas == rule.min_component)[0])
        out = np.zeros((2, len(self.true)), np.int64)
        rows = self.active(index)
        out[0, rows] = pieces.intersection[:, at, area]
        out[1, rows] = pieces.predicted[:, at, area]
        return out[0], out[1]


def _place(thresholds: NDArray[np.float32], wanted: float) -> int:
    return int(np.flatnonzero(thresholds == np.float32(wanted))[0])


def open_member(folders: Sequence[Path], folds: Folds | None = None) -> Store:
    """Return which store holds each image of a run, from its fold folders (run/fold0, ...).

    Raises DataError where two folds predict the same image, a store is missing or damaged, or,
    with `folds`, where one holds other images than its fold.
    """
    store: Store = {}
    for folder in folders:
        reader = OofReader(folder / "oof")
        if twice := store.keys() & set(reader.image_ids):
            raise DataError(
                f"{folder} predicts {len(twice)} images that another fold of the run predicts",
                hint=_RETRAIN,
            )
        if folds is not None:
            _check_images(folder, reader, folds)
        store |= dict.fromkeys(reader.image_ids, reader)
    return store


def _check_images(folder: Path, reader: OofReader, folds: Folds) -> None:
    number = int(folder.name.removeprefix("fold"))
    wanted = {name for name, (_, fold) in folds.items() if fold == number}
    found = set(reader.image_ids)
    if found == wanted:
        return
    first = min(found ^ wanted)
    where = f"belongs to fold {folds[first][1]}" if first in folds else "is in no fold"
    raise DataError(
        f"{folder} predicts other images than fold {number} has now: {len(found - wanted)} too "
        f"many, {len(wanted - found)} missing; {first} {where}",
        hint=_RETRAIN,
    )


def gather(
    members: Sequence[Store],
    truth: Truth,
    spec: TaskSpec,
    *,
    clusters: Mapping[str, int],
    pieces: bool = True,
    progress: Progress | None = None,
) -> Evidence:
    """Average members of equal weight on the images that all of them predict, and count.

    Members that predict masks are averaged at the image's own size; those that predict labels
    make the gate, or, for classification, the prediction itself. Without `pieces` no components are
    counted, which takes longest. Raises DataError where no image is predicted by all, and for
    probabilities that are none.
    """
    pool = open_pool(members, truth, spec, clusters)
    labels = Blend((1,) * len(pool.labels)) if len(pool.labels) else None
    if spec.kind == "classification":
        assert labels is not None
        return from_labels(pool, labels)
    (counted,) = count_blends(pool, [Blend((1,) * len(pool.masks))], progress, pieces=pieces)
    return counted if labels is None else replace(counted, gate=labels.mean(list(pool.labels)))


def count_image(probs: NDArray[np.float32], truth: Mapping[int, str]) -> NDArray[np.int64]:
    """Count one image's mask probabilities (C, H, W): (2, C, T) areas and intersections."""
    counted = []
    for index, plane in enumerate(scaled(probs)):
        real = rle.decode(truth[index], *plane.shape) if index in truth else None
        counted.append(totals_of(plane, real, THRESHOLDS))
    return np.stack(counted, axis=1)


def from_labels(pool: Pool, blend: Blend) -> Evidence:
    """Count a classification: what the mean of label members predicts at every threshold.

    Where exactly one class is true it is the first of the most probable.
    """
    mean = blend.mean(list(pool.labels))
    if pool.spec.exclusive:
        best = np.arange(mean.shape[1]) == mean.argmax(axis=1)[:, None]
        found = np.repeat(best[..., None], len(THRESHOLDS), axis=2)
    else:
        found = np.asarray(mean[..., None] >= THRESHOLDS)
    predicted = found.astype(np.int64)
    both = predicted * pool.true[..., None]
    return Evidence(pool.names, pool.clusters, pool.true, predicted, both, None, 1)


def count_blends(
    pool: Pool,
    blends: Sequence[Blend],
    progress: Progress | None = None,
    *,
    pieces: bool = True,
) -> list[Evidence]:
    """Count every pixel of several blends of the mask members in one pass over their maps."""
    areas = area_grid(pool.pixels) if pieces else None
    shape = (2, *pool.true.shape, len(THRESHOLDS))
    totals = [np.zeros(shape, np.int32) for _ in blends]
    kept: list[list[list[NDArray[np.int32]]]] = [[[] for _ in pool.spec.classes] for _ in blends]

    def one(number: int, active: list[Active]) -> tuple[int, list[_Counted]]:
        return number, [_count(found, blend, areas) for found in active for blend in blends]

    for number, found in pool.each(one, progress or QUIET, "read out-of-fold masks"):
        for at, counted in enumerate(found):
            blend = at % len(blends)
            if counted.totals[0].any():
                totals[blend][:, number, counted.number] = counted.totals
                kept[blend][counted.number].append(counted.pieces)
    return [
        Evidence(
            image_ids=pool.names,
            clusters=pool.clusters,
            true=pool.true,
            predicted=total[0],
            intersection=total[1],
            gate=None,
            pixels=pool.pixels,
            components=tuple(map(_stacked, one_kept)) if areas is not None else None,
        )
        for total, one_kept in zip(totals, kept, strict=True)
    ]


class _Counted(NamedTuple):
    """One class of one image under one blend: totals (2, T), components (2, T, A)."""

    number: int
    totals: NDArray[np.int64]
    pieces: NDArray[np.int32]


def _count(active: Active, blend: Blend, areas: NDArray[np.int64] | None) -> _Counted:
    plane, pieces = scaled(blend.mean(list(active.planes))), _NO_PIECES
    if areas is not None:
        found = components_of(plane, active.truth, COMPONENT_THRESHOLDS, areas)
        pieces = found.astype(np.int32)
    return _Counted(active.number, totals_of(plane, active.truth, THRESHOLDS), pieces)


def _stacked(pieces: Sequence[NDArray[np.int32]]) -> Components:
    whole = np.stack(pieces) if pieces else _NO_PIECES
    return Components(COMPONENT_THRESHOLDS, whole[:, 0], whole[:, 1])

"""What every image is worth, one by one: the paired data behind each score that is reported.

Two results on the same images are compared image by image, and resampled by cluster. An
ensemble's are written beside it, so that nobody needs its maps again.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from kagflow.errors import DataError
from kagflow.task.folds import Folds
from kagflow.task.metric import Metric
from kagflow.task.table import read_table, write_table

_COUNTS = ("true", "predicted", "intersection")
SUFFIX = ".images.csv"


class Images(NamedTuple):
    """Name N images, the numbers of their near-duplicate groups (N,), and those of their folds."""

    ids: tuple[str, ...]
    clusters: NDArray[np.int64]
    folds: NDArray[np.int64]


@dataclass(frozen=True)
class PerImage:
    """Hold N images and C classes of a run or an ensemble, as their out-of-fold rules left them.

    `clusters` and `folds` (N,) number the groups of near-duplicates and the folds; `true`,
    `predicted` and `intersection` (N, C) int64 are pixels, for classification 0 or 1; `scores` is
    the metric, (N, C), or (N, 1) where it judges an image as a whole, and its mean is the score;
    `floors` is the same for predicting nothing. `gate` (N, C) float64 is the calibrated
    out-of-fold probability that the class is there, None without label members. No image was
    used to tune what is said of it.
    """

    name: str
    classes: tuple[str, ...]
    image_ids: tuple[str, ...]
    clusters: NDArray[np.int64]
    folds: NDArray[np.int64]
    true: NDArray[np.int64]
    predicted: NDArray[np.int64]
    intersection: NDArray[np.int64]
    scores: NDArray[np.float64]
    floors: NDArray[np.float64]
    gate: NDArray[np.float64] | None = None

    @property
    def image_scores(self) -> NDArray[np.float64]:
        """Score of each image: (N,); its mean is the score."""
        return np.asarray(self.scores.mean(axis=1), np.float64)

    def take(self, image_ids: Sequence[str]) -> PerImage:
        """Return the same for some images, in their order; raises DataError without one."""
        row = {name: at for at, name in enumerate(self.image_ids)}
        if missing := [name for name in image_ids if name not in row]:
            raise DataError(
                f"{self.name} says nothing of {len(missing)} images, the first is {missing[0]}",
                hint="Compare results on the images that both have.",
            )
        rows = np.array([row[name] for name in image_ids], np.int64)
        return replace(
            self,
            image_ids=tuple(image_ids),
            clusters=self.clusters[rows],
            folds=self.folds[rows],
            true=self.true[rows],
            predicted=self.predicted[rows],
            intersection=self.intersection[rows],
            scores=self.scores[rows],
            floors=self.floors[rows],
            gate=None if self.gate is None else self.gate[rows],
        )


def from_counts(
    name: str,
    classes: Sequence[str],
    images: Images,
    counts: NDArray[np.int64],
    metric: Metric,
    *,
    gate: NDArray[np.float64] | None = None,
) -> PerImage:
    """Score counts (3, N, C) of true, predicted, intersection with the competition's metric."""
    true, predicted, intersection = counts
    nothing = np.zeros_like(true)
    return PerImage(
        name=name,
        classes=tuple(classes),
        image_ids=images.ids,
        clusters=images.clusters,
        folds=images.folds,
        true=true,
        predicted=predicted,
        intersection=intersection,
        scores=_two_axes(metric(intersection, predicted, true)),
        floors=_two_axes(metric(nothing, nothing, true)),
        gate=gate,
    )


def images_of(image_ids: Sequence[str], folds: Folds) -> Images:
    """Look up the groups and folds of images."""
    places = np.array([folds[name] for name in image_ids], np.int64).reshape(-1, 2)
    return Images(tuple(image_ids), places[:, 0], places[:, 1])


def path_beside(ensemble: Path) -> Path:
    """Return where the images of an ensemble's JSON file are kept."""
    return ensemble.with_name(ensemble.stem + SUFFIX)


def shared(results: Sequence[PerImage]) -> list[PerImage]:
    """Return the results on the images that all of them have, in one order.

    Raises DataError where there is no such image.
    """
    names = sorted(set.intersection(*(set(one.image_ids) for one in results)))
    if not names:
        raise DataError(
            f"{', '.join(one.name for one in results)} have no image in common",
            hint="Compare results that share a fold.",
        )
    return [one.take(names) for one in results]


def write(path: Path, result: PerImage) -> None:
    """Write a result as CSV, one image a line: counts of each class, then the gate."""
    header = ["image_id", "cluster", "fold"]
    header += [f"{count}_{one}" for one in result.classes for count in _COUNTS]
    counts = np.stack([result.true, result.predicted, result.intersection], axis=2)
    cells = [
        [name, cluster, fold, *row]
        for name, cluster, fold, row in zip(
            result.image_ids,
            result.clusters.tolist(),
            result.folds.tolist(),
            counts.reshape(len(counts), -1).tolist(),
            strict=True,
        )
    ]
    if result.gate is not None:
        header += [f"gate_{one}" for one in result.classes]
        for line, gate in zip(cells, result.gate.tolist(), strict=True):
            line += [f"{value:.6g}" for value in gate]
    write_table(path, header, cells)


def read(path: Path, metric: Metric, classes: Sequence[str]) -> PerImage:
    """Read what `write` wrote; raises DataError where it is missing or of other classes."""
    table = read_table(path)
    ids = table.column("image_id")
    columns = [[table.column(f"{count}_{one}") for one in classes] for count in _COUNTS]
    gates = [f"gate_{one}" for one in classes if f"gate_{one}" in table.header]
    try:
        counts = np.array(columns, np.int64).reshape(3, len(classes), len(ids))
        clusters, folds = (np.array(table.column(name), np.int64) for name in ("cluster", "fold"))
        gate = np.array([table.column(name) for name in gates], np.float64).T if gates else None
    except ValueError as fault:
        raise DataError(f"{path}: {fault}", hint="Make the ensemble anew.") from None
    return from_counts(
        path.name.removesuffix(SUFFIX),
        classes,
        Images(ids, clusters, folds),
        np.ascontiguousarray(counts.swapaxes(1, 2)),
        metric,
        gate=gate,
    )


def _two_axes(scores: NDArray[np.float64]) -> NDArray[np.float64]:
    return scores if scores.ndim > 1 else scores[:, None]

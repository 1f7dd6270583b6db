"""Sixteen samples as training would draw them, without decoding the whole competition."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from kagflow.learn.assets import TrainingImages
from kagflow.learn.cache import Cache, Part, open_cache
from kagflow.learn.job import Job, pair
from kagflow.learn.past import Past, build_sampler
from kagflow.learn.sampler import Draw, Labels, draws
from kagflow.progress import Progress
from kagflow.task.folds import read_folds
from kagflow.task.labels import read_labels

SAMPLES = 16
# So many of them show a defect, where the epoch has them.
DEFECTS = 8
# What assets are made of here: the samples, and so many further training images.
FOR_ASSETS = 48


@dataclass(frozen=True)
class Scene:
    """The samples to look at: `draws[i].image` is a row of `rows` and `labels`.

    `later` of them come later in the epoch, taken since they show a defect; `images` are those
    that assets are made of.
    """

    cache: Cache
    rows: npt.NDArray[np.int64]
    labels: Labels
    draws: tuple[Draw, ...]
    later: int
    images: TrainingImages

    @property
    def ids(self) -> tuple[str, ...]:
        """Each sample's image."""
        return tuple(self.cache.ids[self.rows[draw.image]] for draw in self.draws)


def open_scene(job: Job, runs: Path, scratch: Path, progress: Progress) -> Scene:
    """Take the first draws of the fold's first epoch and decode their images alone.

    `runs` is where finished runs lie, for a sampler that learns from them. Raises DataError for
    an image that cannot be decoded, UsageError where the sampler cannot be built.
    """
    folds = {name: fold for name, (_, fold) in read_folds(job.data / "folds.csv").items()}
    truth = read_labels(job.data / job.spec.train_csv, job.spec, only=folds)
    files = Part(folds, truth).files(job.data / job.spec.train_images)
    ids = tuple(file.name for file in files if folds[file.name] != job.fold)
    labels = np.zeros((len(ids), len(job.spec.classes)), bool)
    for row, name in enumerate(ids):
        labels[row, list(truth.get(name, {}))] = True
    past = Past(runs, job.data, job.spec, job.fold, ids, truth, None, progress)
    epoch = draws(
        build_sampler(job.recipe["sampler"], past),
        labels,
        samples=job.recipe["samples"] or len(ids),
        epoch=0,
        epochs=job.recipe["epochs"],
        seed=job.recipe["seed"],
    )
    chosen, later = choose(epoch, labels)
    seen = [draw.image for draw in chosen]
    spread = np.linspace(0, len(ids) - 1, min(len(ids), FOR_ASSETS)).astype(int).tolist()
    needed = sorted({*seen, *(spread if job.recipe["assets"] else ())})
    part = Part({ids[at] for at in needed}, truth)
    size = pair(job.recipe["size"])
    cache = open_cache(job.data, job.spec, size, part=part, folder=scratch, progress=progress)
    # Images are decoded in the order of the files, which is that of `ids`.
    rows = np.arange(len(needed))
    place = {at: row for row, at in enumerate(needed)}
    moved = tuple(draw._replace(image=place[draw.image]) for draw in chosen)
    images = TrainingImages(tuple(ids[at] for at in needed), labels[needed], cache, rows)
    return Scene(cache, rows, labels[needed], moved, later, images)


def choose(epoch: Sequence[Draw], labels: Labels) -> tuple[list[Draw], int]:
    """Return the first draws, the last clean ones among them changed for later ones with a defect.

    There are as many changes as it takes to show enough defects; their number is returned too.
    """
    first, rest = list(epoch[:SAMPLES]), epoch[SAMPLES:]
    shown = sum(bool(labels[draw.image].any()) for draw in first)
    more = [draw for draw in rest if labels[draw.image].any()][: max(DEFECTS - shown, 0)]
    clean = [at for at, draw in enumerate(first) if not labels[draw.image].any()]
    for at, draw in zip(reversed(clean), more, strict=False):
        first[at] = draw
    return first, min(len(more), len(clean))

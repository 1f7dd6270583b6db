"""What a training run is given, and the data of its fold as training sees it."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from kagflow import workspace
from kagflow.errors import UsageError
from kagflow.infer.engine import Member
from kagflow.learn.cache import Cache, Part, open_cache
from kagflow.naming import FULL, Fold
from kagflow.progress import Progress
from kagflow.task.folds import read_folds
from kagflow.task.labels import read_labels
from kagflow.task.spec import TaskSpec


@dataclass(frozen=True)
class Job:
    """One fold to train, or FULL for all of them.

    `save_every` is in seconds; `force` goes on with a run that was begun from something else;
    `until` is the time.monotonic() at which a budget ends; `memory` caps the device's, in bytes.
    `processes` share each batch.
    """

    run_dir: Path
    recipe: Mapping[str, Any]
    spec: TaskSpec
    data: Path
    fold: Fold
    device: str = "auto"
    save_every: float = 600.0
    force: bool = False
    until: float | None = None
    memory: int | None = None
    processes: int = 1

    @property
    def label(self) -> str:
        """The job as messages name it."""
        where = "on everything" if self.fold == FULL else f"fold {self.fold}"
        return f"{self.run_dir.parent.name} {where}"

    @property
    def member(self) -> Member:
        """The run as an ensemble of one."""
        return Member(
            name=self.run_dir.parent.name,
            predicts=self.recipe["predicts"],
            model=self.recipe["model"],
            input=self.recipe["input"],
            size=pair(self.recipe["size"]),
            weights=(self.run_dir / "best.safetensors",),
            tta=tuple(self.recipe["tta"]),
            assets={name: self.run_dir / "assets" / name for name in self.recipe["assets"]},
        )


@dataclass(frozen=True)
class FoldData:
    """Rows of the cache by fold, and what is true of every row.

    `labels` `(N, C)` tells which classes an image shows; `truth` holds the run lengths by image;
    `train` and `validation` are row numbers, none of them held out where the run trains on
    everything; `folds` is the number of folds.
    """

    cache: Cache
    labels: npt.NDArray[np.bool_]
    truth: Mapping[str, Mapping[int, str]]
    train: npt.NDArray[np.int64]
    validation: npt.NDArray[np.int64]
    folds: int

    @property
    def held_out(self) -> list[str]:
        """Image ids of the validation part."""
        return [self.cache.ids[row] for row in self.validation]


def read_fold(
    job: Job,
    progress: Progress,
    *,
    only: Collection[str] | None = None,
    place: Path | None = None,
) -> FoldData:
    """Read labels, folds and decoded images; those of `only` where just some are wanted.

    Images in no fold, which a survey that skips dirt leaves, are left out. `place` is where decoded
    images go, the workspace's cache otherwise. Raises UsageError for a fold that does not exist.
    """
    every = {name: fold for name, (_, fold) in read_folds(job.data / "folds.csv").items()}
    folds = {name: every[name] for name in (every if only is None else only)}
    count = 1 + max(every.values())
    if job.fold != FULL and not 0 <= job.fold < count:
        raise UsageError(f"fold {job.fold} is out of range", hint=f"folds are 0 to {count - 1}")
    truth = read_labels(job.data / job.spec.train_csv, job.spec, only=folds)
    size, part, folder = pair(job.recipe["size"]), Part(folds, truth), place or cache_folder(job)
    cache = open_cache(job.data, job.spec, size, part=part, folder=folder, progress=progress)
    labels = np.zeros((len(cache.ids), cache.classes), bool)
    for row, name in enumerate(cache.ids):
        labels[row, list(truth.get(name, {}))] = True
    # Nothing is held out of a training on everything.
    held = np.array([folds[name] == job.fold for name in cache.ids], bool)
    return FoldData(cache, labels, truth, np.flatnonzero(~held), np.flatnonzero(held), count)


def cache_folder(job: Job) -> Path:
    """Return where decoded images lie."""
    # The data lies two below the profile's home, and the workspace is there or above.
    return workspace.find(job.data.resolve().parents[1], workspace.PROFILES[0]).cache / "images"


def pair(size: Any) -> tuple[int, int] | None:
    """Return (h, w) from a recipe's list, or None."""
    return None if size is None else (int(size[0]), int(size[1]))

"""Say before a training what it will take: time, the device's memory, disk."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from kagflow.learn import checkpoint
from kagflow.learn.begin import resolved, standing
from kagflow.learn.cache import Part, is_cached
from kagflow.learn.job import Job, cache_folder, pair
from kagflow.learn.loop import steps_an_epoch
from kagflow.learn.speed import Speed
from kagflow.naming import FULL, Fold
from kagflow.task.folds import read_folds
from kagflow.task.index import read_index
from kagflow.task.labels import read_labels
from kagflow.task.spec import TaskSpec

Standing = Literal["finished", "refused", "goes on", "begins"]
# Beside the best epochs that count, those of the older checkpoint may be kept.
_KEPT_TOO = 2


@dataclass(frozen=True)
class Stock:
    """What is known of the fetched data: each image's fold, which show something, their sizes."""

    folds: Mapping[str, int]
    labels: Mapping[str, Mapping[int, str]]
    sizes: Mapping[str, tuple[int, int]]

    @classmethod
    def read(cls, data: Path, spec: TaskSpec) -> Stock:
        """Read what fetch wrote; sizes may be missing."""
        folds = {name: fold for name, (_, fold) in read_folds(data / "folds.csv").items()}
        index = data / "index.csv"
        rows = read_index(index) if index.is_file() else {}
        sizes = {name: (row.height, row.width) for name, row in rows.items()}
        return cls(folds, read_labels(data / spec.train_csv, spec, only=folds), sizes)

    def held_out(self, fold: Fold) -> int:
        """Return how many images a fold does not train on."""
        return sum(one == fold for one in self.folds.values())

    def decoded(self, size: tuple[int, int] | None) -> int | None:
        """Return the bytes of all images and masks decoded at a size, None for their own."""
        shapes = {name: size or self.sizes.get(name) for name in self.folds}
        if None in shapes.values():
            return None
        areas = {name: shape[0] * shape[1] for name, shape in shapes.items() if shape}
        return sum(areas.values()) + sum(areas.get(name, 0) for name in self.labels)


@dataclass(frozen=True)
class Forecast:
    """What a job will take from now on; None for what is not known, which `unknown` names.

    `step` of `steps` are done. Seconds are of decoding all images once for all, of training with
    its glances, and of predicting the held-out images; `memory` in bytes is the device's, `disk`
    that of the run's folder, `decoded` that of the decoded images where they are not there yet.
    """

    standing: Standing
    why: str = ""
    step: int = 0
    steps: int | None = None
    decode: float | None = None
    train: float | None = None
    predict: float | None = None
    memory: int | None = None
    disk: int | None = None
    decoded: int | None = None
    source: str = ""
    changes: Mapping[str, Any] = field(default_factory=dict)
    unknown: tuple[str, ...] = ()

    @property
    def seconds(self) -> float | None:
        """The time of all, where it is known."""
        if self.standing in ("finished", "refused"):
            return 0.0
        parts = (self.train, self.predict)
        return None if None in parts else sum(one for one in parts if one is not None)


def forecast(job: Job, stock: Stock | None, measure: Callable[[Job], Speed]) -> Forecast:
    """Forecast a job; `stock` is None where its data is not fetched.

    `measure` is asked for the speed only of what is yet to be trained.
    """
    if stock is None:
        return Forecast("begins", unknown=("steps", "time", "memory", "disk"))
    now = standing(job)
    if now.finished and not now.refused:
        return Forecast("finished")
    if now.refused and (now.finished or not job.force):
        return Forecast("refused", why="; ".join([*now.other, *now.code]))
    speed = measure(job)
    done = checkpoint.steps(job.run_dir)
    begun = max(done, default=None)
    changes = speed.changes if begun is None else resolved(job.run_dir)
    return _of_steps(job, stock, speed, {**job.recipe, **changes}, changes, begun=begun)


def _of_steps(
    job: Job,
    stock: Stock,
    speed: Speed,
    recipe: Mapping[str, Any],
    changes: Mapping[str, Any],
    *,
    begun: int | None,
) -> Forecast:
    held = stock.held_out(job.fold)
    samples = recipe["samples"] or len(stock.folds) - held
    each = steps_an_epoch(samples, recipe["batch"], recipe["accumulate"])
    steps, step = each * recipe["epochs"], begun or 0
    left = steps - step
    # Of an epoch's windows the last may be short.
    images = left / each * (max(samples // recipe["batch"], 1) * recipe["batch"])
    size = pair(recipe["size"])
    part = Part(stock.folds, stock.labels)
    there = is_cached(job.data, job.spec, size, part=part, folder=cache_folder(job))
    decode = 0.0 if there else _times(speed.decode, len(stock.folds))
    predict = 0.0 if job.fold == FULL else _times(speed.predict, held)
    decoded = 0 if there else stock.decoded(size)
    known = {"time of decoding": decode, "time of predicting": predict, "decoded bytes": decoded}
    return Forecast(
        "begins" if begun is None else "goes on",
        step=step,
        steps=steps,
        decode=decode,
        train=images * speed.image + left / each * speed.glance,
        predict=predict,
        memory=speed.memory,
        disk=_disk(recipe, speed, held),
        decoded=decoded,
        source=speed.source,
        changes=dict(changes),
        unknown=tuple(name for name, value in known.items() if value is None),
    )


def _disk(recipe: Mapping[str, Any], speed: Speed, held: int) -> int:
    average = recipe["average"]
    kept = average + _KEPT_TOO if average > 1 or recipe["early_stop"] else 0
    oof = int((speed.oof or 0) * held)
    return checkpoint.KEPT * speed.checkpoint + (1 + kept) * speed.weights + oof


def _times(each: float | None, count: int) -> float | None:
    return None if each is None else each * count


def wall(seconds: Iterable[float], at_once: int) -> float:
    """Return how long jobs take where so many devices each take the next one when free."""
    free = [0.0] * at_once
    for one in seconds:
        free[free.index(min(free))] += one
    return max(free)

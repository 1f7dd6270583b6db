"""Measure a recipe's speed and memory in a few seconds, on a few real images, in a scratch folder.

The model has no trained weights and the steps train nothing that stays.
"""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from kagflow.errors import DataError
from kagflow.infer.export import save_weights
from kagflow.learn import checkpoint
from kagflow.learn.assets import TrainingImages, make_assets
from kagflow.learn.cache import Part
from kagflow.learn.feed import worker_count
from kagflow.learn.fits import find_fit
from kagflow.learn.heldout import predict_fold
from kagflow.learn.job import Job, read_fold
from kagflow.learn.loop import Plan
from kagflow.learn.prepare import prepare
from kagflow.learn.probe import IMAGES
from kagflow.learn.room import SCRATCH, CpuRoom, open_room
from kagflow.learn.speed import Speed
from kagflow.learn.state import State
from kagflow.learn.step import Stepper
from kagflow.naming import FULL
from kagflow.progress import QUIET
from kagflow.task.folds import read_folds
from kagflow.task.labels import read_labels

# Of each part of the fold so many images are decoded: enough that no two are alike.
TRAINED, HELD_OUT = 12, 8
# How long steps are taken, and the longest first step after which more of them are.
SECONDS, SLOW = 2.0, 2.0


@dataclass(frozen=True)
class _Steps:
    """Seconds an image; `peak` bytes at the height of a step of so many images.

    `fixed` of them, the gradients, do not grow with the images.
    """

    image: float
    peak: int
    fixed: int
    images: int
    count: int

    def peak_of(self, images: int) -> int:
        """Estimate the height of a step of another size."""
        return self.fixed + max(0, self.peak - self.fixed) * images // self.images


def try_out(job: Job, device: torch.device, *, base: int | None = None) -> Speed:
    """Take a few steps and predict a few images; leaves nothing behind.

    On a CPU memory is estimated: the tensors of a step beside the `base` bytes that the process
    holds without them. Where steps of the recipe's batch would take long, smaller ones are
    measured and scaled. Raises LocalError where no batch fits the device, and whatever the
    recipe's own code raises.
    """
    with tempfile.TemporaryDirectory(prefix="kagflow-plan-") as scratch, _same_numbers():
        return _Tryout(job, device, Path(scratch)).speed(base)


class _Tryout:
    """A job on a few of its images, in a folder of its own."""

    def __init__(self, job: Job, device: torch.device, scratch: Path) -> None:
        recipe = {**job.recipe, "weights": "none", "compile": False, "epochs": 1}
        # Past runs, from which a sampler may learn, know other images; a batch takes no longer.
        recipe |= {"sampler": {"target": "plain", "kwargs": {}}, "early_stop": None, "pseudo": None}
        recipe["samples"] = max(recipe["batch"] * recipe["accumulate"], TRAINED)
        self.asked, self.device = job, device
        self.job = replace(job, run_dir=scratch / "run" / "fold", recipe=recipe)
        folds = {name: fold for name, (_, fold) in read_folds(job.data / "folds.csv").items()}
        self.held_out = sum(fold == job.fold for fold in folds.values())
        names = _some(job, folds)
        began = time.monotonic()
        self.data = read_fold(self.job, QUIET, only=names, place=scratch / "images")
        self.decode = (time.monotonic() - began) / len(self.data.cache.ids)
        images = TrainingImages.of(self.data)
        make_assets(recipe["assets"], images, self.job.run_dir / "assets")

    def speed(self, base: int | None) -> Speed:
        """Measure everything."""
        memory, changes = None, dict[str, Any]()
        if self.device.type == "cuda":
            room = open_room(self.device, self.job.memory)
            fit = find_fit(self.job, self.data, self.device, room, shares=self.job.processes)
            memory, changes = fit.peak, fit.changes
        own = CpuRoom(base=base)
        state, plan = self._prepared(changes)
        steps = _time_steps(state, plan)
        loading = _time_loading(plan, self.job.recipe["workers"])
        stays = sum(one.numel() * one.element_size() for one in _tensors(state.state_dict()))
        if memory is None:
            memory = own.base + int(SCRATCH * stays) + steps.peak_of(plan.batch)
        save_weights(state.weights, self.job.member.weights[0])
        predict, oof = self._predict()
        views = len(self.job.recipe["tta"])
        scaled = "" if steps.images == plan.batch else f", scaled to {plan.batch}"
        return Speed(
            source=f"measured now, {steps.count} steps of {steps.images} images{scaled}",
            image=loading(steps.image),
            glance=min(IMAGES, self.held_out) * (predict or 0.0) / views,
            predict=predict,
            decode=self.decode,
            memory=memory,
            checkpoint=stays,
            weights=self.job.member.weights[0].stat().st_size,
            oof=oof,
            changes=changes,
        )

    def _prepared(self, changes: dict[str, Any]) -> tuple[State, Plan]:
        recipe = {**self.job.recipe, **changes}
        recipe["batch"] = -(-recipe["batch"] // self.job.processes)
        return prepare(replace(self.job, recipe=recipe), self.data, self.device, fresh=False)

    def _predict(self) -> tuple[float | None, float | None]:
        """Return seconds and bytes of predicting one held-out image as at a run's end."""
        if self.job.fold == FULL or not len(self.data.validation):
            return None, None
        # The first image also pays for what is set up once.
        first = replace(self.data, validation=self.data.validation[:1])
        seconds = predict_fold(self.job, first, str(self.device), QUIET)
        data = first
        if seconds < SLOW / HELD_OUT:
            data = self.data
            seconds = predict_fold(self.job, data, str(self.device), QUIET)
        stored = sum(file.stat().st_size for file in (self.job.run_dir / "oof").iterdir())
        return seconds, stored / len(data.validation)


def _time_steps(state: State, plan: Plan) -> _Steps:
    """Take steps on two images, then on whole batches unless that would take long."""
    stepper, draws = Stepper(state, plan), plan.batches(0)[0]
    gradients = sum(one.numel() * one.element_size() for one in state.model.parameters())
    images = min(2, len(draws))
    seconds, peak = _counted_step(stepper, plan, images)
    if seconds > SLOW:
        return _Steps(seconds / images, peak, gradients, images, count=1)
    seconds = _step(stepper, plan, images)
    if seconds / images * len(draws) < SLOW:
        images = len(draws)
        _, peak = _counted_step(stepper, plan, images)
    began, count = time.monotonic(), 0
    while not count or (time.monotonic() - began < SECONDS and count < 20):
        _step(stepper, plan, images)
        count += 1
    return _Steps((time.monotonic() - began) / count / images, peak, gradients, images, count)


def _counted_step(stepper: Stepper, plan: Plan, images: int) -> tuple[float, int]:
    room = CpuRoom(base=0)
    with room.watched():
        seconds = _step(stepper, plan, images)
    return seconds, room.peak


def _step(stepper: Stepper, plan: Plan, images: int) -> float:
    batch = plan.data.batch(plan.batches(0)[0][:images])
    began = time.monotonic()
    stepper.step([batch]).read()
    return time.monotonic() - began


@dataclass(frozen=True)
class _Loading:
    """Seconds of making one sample, and how many processes make them beside the steps."""

    seconds: float
    workers: int
    on_cpu: bool

    def __call__(self, step: float) -> float:
        """Return the seconds an image of a step of that many and its data."""
        if not self.workers or self.on_cpu:
            return step + self.seconds
        return max(step, self.seconds / min(self.workers, os.cpu_count() or 1))


def _time_loading(plan: Plan, workers: int | None) -> _Loading:
    draws = plan.batches(0)[0][:TRAINED]
    plan.data.batch(draws)
    began = time.monotonic()
    plan.data.batch(draws)
    seconds = (time.monotonic() - began) / len(draws)
    count = worker_count(plan.device) if workers is None else workers
    return _Loading(seconds, count, on_cpu=plan.device.type == "cpu")


def _some(job: Job, folds: Mapping[str, int]) -> list[str]:
    """Name a few images of both parts, half of them with a label where there are such."""
    truth = read_labels(job.data / job.spec.train_csv, job.spec, only=folds)
    files = {file.name for file in Part(folds, truth).files(job.data / job.spec.train_images)}
    names = [name for name in folds if name in files]
    if not names:
        raise DataError(f"no training image of {job.data} is in a fold", hint="fetch it again")
    return [
        *_mixed([name for name in names if folds[name] != job.fold], truth, TRAINED),
        *_mixed([name for name in names if folds[name] == job.fold], truth, HELD_OUT),
    ]


def _mixed(names: Sequence[str], truth: Any, count: int) -> list[str]:
    shown = [name for name in names if truth.get(name)][: count // 2]
    return shown + [name for name in names if name not in shown][: count - len(shown)]


def _tensors(state: Any) -> Iterator[Tensor]:
    if isinstance(state, Tensor):
        yield state
    elif isinstance(state, dict | list | tuple):
        for one in state.values() if isinstance(state, dict) else state:
            yield from _tensors(one)


@contextmanager
def _same_numbers() -> Iterator[None]:
    random = checkpoint.random_state()
    try:
        yield
    finally:
        checkpoint.set_random_state(random)

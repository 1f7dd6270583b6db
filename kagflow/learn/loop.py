"""The training loop: epochs of batches of steps, resumable between any two steps."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import clip_grad_norm_
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler
from torch.optim.swa_utils import AveragedModel
from torch.utils.data import DataLoader

from kagflow.errors import DataError, UsageError
from kagflow.infer.models import named_outputs
from kagflow.learn import checkpoint
from kagflow.learn.dataset import Sample, Samples
from kagflow.learn.losses import Loss
from kagflow.learn.sampler import Draw
from kagflow.learn.stop import Stop
from kagflow.progress import QUIET, Progress

# So many losses in a row that are no number mean that the weights will not come back.
HOPELESS = 20
# Epochs of a few seconds are not worth a flush of all weights to disk each.
EPOCH_SECONDS = 20.0


@dataclass
class Running:
    """What an epoch has summed up so far; it is saved, so that a resumed epoch reports whole."""

    loss: float = 0.0
    steps: int = 0
    images: int = 0
    seconds: float = 0.0
    waited: float = 0.0


@dataclass
class State:
    """Everything that training changes, and so everything that a checkpoint holds."""

    model: nn.Module
    ema: AveragedModel | None
    optimiser: Optimizer
    schedule: LRScheduler
    scaler: torch.amp.GradScaler
    step: int = 0
    epoch: int = 0
    batches: int = 0
    bad: int = 0
    seconds: float = 0.0
    running: Running = field(default_factory=Running)
    history: list[dict[str, float]] = field(default_factory=list)

    _PARTS = ("model", "ema", "optimiser", "schedule", "scaler")
    _COUNTS = ("step", "epoch", "batches", "bad", "seconds", "history")

    def state_dict(self) -> dict[str, Any]:
        """Return all of it, with the generators, in what `torch.load` reads without pickle."""
        parts = {
            name: part.state_dict()
            for name in self._PARTS
            if (part := getattr(self, name)) is not None
        }
        counts = {name: getattr(self, name) for name in self._COUNTS}
        return (
            parts
            | counts
            | {"running": vars(self.running).copy(), "random": checkpoint.random_state()}
        )

    def load_state_dict(self, saved: dict[str, Any]) -> None:
        """Become what `state_dict` returned."""
        for name in self._PARTS:
            if (part := getattr(self, name)) is not None:
                part.load_state_dict(saved[name])
        for name in self._COUNTS:
            setattr(self, name, saved[name])
        self.running = Running(**saved["running"])
        checkpoint.set_random_state(saved["random"])

    @property
    def weights(self) -> nn.Module:
        """The model that predicts: the average where one is kept."""
        return self.model if self.ema is None else self.ema.module


@dataclass(frozen=True)
class Plan:
    """What stays the same during training.

    `draws(epoch)` lists an epoch's `samples` samples; `save_every` is in seconds.
    """

    folder: Path
    data: Samples
    draws: Callable[[int], list[Draw]]
    samples: int
    loss: Loss
    predicts: str
    epochs: int
    batch: int
    workers: int
    device: torch.device
    dtype: torch.dtype
    clip: float
    save_every: float = 600.0

    @property
    def steps(self) -> int:
        """Optimiser steps in all epochs; a short last batch goes, unless it is the only one."""
        return self.epochs * max(self.samples // self.batch, 1)


def fit(
    state: State,
    plan: Plan,
    *,
    progress: Progress = QUIET,
    on_epoch: Callable[[dict[str, float]], None] | None = None,
) -> None:
    """Train from wherever `state` is to the last epoch; the last state is on disk at the end.

    Raises KeyboardInterrupt after SIGINT or SIGTERM, with the state saved, and DataError when
    the loss stays no number, with the last good checkpoint kept.
    """
    saved_at = time.monotonic()
    with Stop() as stop:
        while state.epoch < plan.epochs:
            batches = _batches(plan, state.epoch)
            label = f"epoch {state.epoch + 1}/{plan.epochs}"
            progress.start(label, len(batches), "steps")
            progress.advance(state.batches)
            for batch, waited in _timed(_loader(plan, batches[state.batches :])):
                _advance(state, plan, batch, waited)
                progress.advance()
                if stop.asked or time.monotonic() - saved_at >= plan.save_every:
                    _save(state, plan)
                    saved_at = time.monotonic()
                if stop.asked:
                    raise KeyboardInterrupt(f"stopped at step {state.step}; rerun to go on")
            progress.finish()
            _close_epoch(state, on_epoch)
            if state.epoch == plan.epochs or time.monotonic() - saved_at >= EPOCH_SECONDS:
                _save(state, plan)
                saved_at = time.monotonic()


def precision(wanted: str, device: torch.device) -> torch.dtype:
    """Return the type to compute in; auto takes what the device is fast and safe in.

    Raises UsageError for fp16 without a GPU, which has no loss scaling.
    """
    if wanted == "fp16" and device.type != "cuda":
        raise UsageError("precision: fp16 needs a GPU", hint="precision=auto or precision=fp32")
    if wanted != "auto":
        return {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}[wanted]
    if device.type != "cuda":
        return torch.float32
    major = torch.cuda.get_device_capability(device)[0]
    # Ampere (8) has native bf16, Volta and Turing (7) fast fp16, Pascal (6) neither.
    return torch.bfloat16 if major >= 8 else torch.float16 if major == 7 else torch.float32


def _batches(plan: Plan, epoch: int) -> list[list[Draw]]:
    # A batch of one or two images at the end would mislead batch norm.
    draws = plan.draws(epoch)
    count = max(len(draws) // plan.batch, 1)
    return [draws[at * plan.batch : (at + 1) * plan.batch] for at in range(count)]


def _loader(plan: Plan, batches: list[list[Draw]]) -> DataLoader[Sample]:
    # A generator of its own: the loader would draw its seed from the global one, and a resumed
    # epoch would leave the sequence.
    return DataLoader(
        plan.data,
        batch_sampler=batches,
        num_workers=plan.workers,
        pin_memory=plan.device.type == "cuda",
        generator=torch.Generator(),
    )


def _timed(batches: DataLoader[Sample]) -> Iterator[tuple[Sample, float]]:
    source = iter(batches)
    while True:
        start = time.monotonic()
        batch = next(source, None)
        if batch is None:
            return
        yield batch, time.monotonic() - start


def _advance(state: State, plan: Plan, batch: Sample, waited: float) -> None:
    start = time.monotonic()
    loss = _step(state, plan, batch)
    state.bad = 0 if math.isfinite(loss) else state.bad + 1
    if state.bad >= HOPELESS:
        raise DataError(
            f"the loss was no number {HOPELESS} steps in a row, up to step {state.step}",
            hint="lower optimiser.lr, or precision=fp32; the last good checkpoint is kept in "
            f"{plan.folder}",
        )
    running, passed = state.running, time.monotonic() - start + waited
    running.loss += loss if math.isfinite(loss) else 0.0
    running.steps += math.isfinite(loss)
    running.images += len(batch["image"])
    running.seconds += passed
    running.waited += waited
    state.seconds += passed
    state.step += 1
    state.batches += 1


def _step(state: State, plan: Plan, batch: Sample) -> float:
    """Do forward, loss, backward and update; a loss that is no number leaves the weights alone."""
    moved = {key: value.to(plan.device, non_blocking=True) for key, value in batch.items()}
    images = moved.pop("image").contiguous(memory_format=torch.channels_last)
    state.model.train()
    state.optimiser.zero_grad(set_to_none=True)
    with torch.autocast(plan.device.type, plan.dtype, enabled=plan.dtype != torch.float32):
        outputs = named_outputs(state.model(images), plan.predicts)
    loss = plan.loss(_floats(outputs), _floats(moved))
    value = loss.item()
    if math.isfinite(value):
        torch.autograd.backward(state.scaler.scale(loss))
        if plan.clip:
            state.scaler.unscale_(state.optimiser)
            clip_grad_norm_(state.model.parameters(), plan.clip)
        state.scaler.step(state.optimiser)
        state.scaler.update()
        if state.ema is not None:
            state.ema.update_parameters(state.model)
    state.schedule.step()
    return value


def _floats(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: tensor.float() for name, tensor in tensors.items()}


def _close_epoch(state: State, on_epoch: Callable[[dict[str, float]], None] | None) -> None:
    running = state.running
    line = {
        "epoch": state.epoch,
        "step": state.step,
        "loss": running.loss / max(running.steps, 1),
        "lr": max(group["lr"] for group in state.optimiser.param_groups),
        "images_per_second": running.images / max(running.seconds, 1e-9),
        "wait_share": running.waited / max(running.seconds, 1e-9),
    }
    state.epoch, state.batches, state.running = state.epoch + 1, 0, Running()
    state.history.append(line)
    if on_epoch is not None:
        on_epoch(line)


def _save(state: State, plan: Plan) -> None:
    # A state within a run of bad losses may be what makes them bad.
    if not state.bad:
        checkpoint.save(plan.folder, state.state_dict(), step=state.step, epoch=state.epoch)

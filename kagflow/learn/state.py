"""Everything that training changes, and so everything that a checkpoint holds."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from kagflow.learn import checkpoint
from kagflow.learn.ema import MovingAverage

Line = dict[str, Any]


@dataclass
class Running:
    """What an epoch has summed up so far; it is saved, so that a resumed epoch reports whole."""

    loss: float = 0.0
    steps: int = 0
    images: int = 0
    seconds: float = 0.0
    waited: float = 0.0


def _no_time() -> dict[str, float]:
    return dict.fromkeys(("wait", "step", "glance", "save", "predict"), 0.0)


@dataclass
class State:
    """What training has come to.

    `loss` is the loss where it has weights or buffers of its own. `forward` is what a step calls:
    the model, or the model compiled; its names are never saved. `streak` names the images of the
    bad steps since the last good one, `time` is in seconds, `history` holds a line an epoch.
    """

    model: nn.Module
    ema: MovingAverage | None
    optimiser: Optimizer
    schedule: LRScheduler
    scaler: torch.amp.GradScaler
    loss: nn.Module | None = None
    forward: Callable[..., Any] | None = None
    step: int = 0
    epoch: int = 0
    batches: int = 0
    streak: list[list[str]] = field(default_factory=list)
    time: dict[str, float] = field(default_factory=_no_time)
    running: Running = field(default_factory=Running)
    history: list[Line] = field(default_factory=list)

    _PARTS = ("model", "ema", "optimiser", "schedule", "scaler", "loss")
    _COUNTS = ("step", "epoch", "batches", "streak", "time", "history")

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

    @property
    def seconds(self) -> float:
        """Time spent on training: steps, and waiting for their data."""
        return self.time["wait"] + self.time["step"]

    def count_time(self, *, waited: float, worked: float) -> None:
        """Count the seconds of a step, and those of waiting for its data."""
        self.time["wait"] += waited
        self.time["step"] += worked
        self.running.waited += waited
        self.running.seconds += waited + worked

    def time_split(self) -> str:
        """Say in one line where the time went."""
        total = max(sum(self.time.values()), 1e-9)
        names = {
            "wait": "waiting for data",
            "step": "steps",
            "glance": "validation glances",
            "save": "checkpoints",
            "predict": "prediction",
        }
        parts = [f"{said} {self.time[key] / total:.0%}" for key, said in names.items()]
        return f"{total:.0f} s: {', '.join(parts)}"

    @contextmanager
    def clock(self, what: str) -> Iterator[None]:
        """Add the time that the block takes to `time[what]`."""
        start = time.monotonic()
        yield
        self.time[what] += time.monotonic() - start

    def broken(self) -> list[str]:
        """Name the weights and buffers that are no numbers."""
        found = {
            f"{part}.{name}": value.isfinite().all()
            for part, module in (("model", self.model), ("ema", self.ema), ("loss", self.loss))
            if module is not None
            for name, value in module.state_dict().items()
            if value.is_floating_point()
        }
        # One look at the device for all.
        fine = torch.stack(list(found.values())).tolist() if found else []
        return [name for name, one in zip(found, fine, strict=True) if not one]

"""Find a learning rate by a range test: Smith, Cyclical Learning Rates, WACV 2017, section 3.3.

A fresh model takes steps while the rate grows from tiny to absurd. Where the smoothed loss falls
fastest, by the rate's logarithm, is a rate at which training makes good way and is still stable:
the steepest point before the minimum, as fastai and torch-lr-finder suggest it.
"""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.optim.lr_scheduler import LambdaLR

from kagflow import durable
from kagflow.errors import DataError
from kagflow.learn import checkpoint
from kagflow.learn.assets import TrainingImages, make_assets
from kagflow.learn.feed import Feed, Window
from kagflow.learn.fits import fitting
from kagflow.learn.job import Job, read_fold
from kagflow.learn.loop import Plan
from kagflow.learn.prepare import find_device, prepare
from kagflow.learn.step import Stepper
from kagflow.progress import QUIET, Progress

FILE = "lr-finder.csv"
LOW, HIGH = 1e-6, 1.0
STEPS = 100
# The mean forgets a step within about ten; its start is corrected as Adam corrects its own.
_SMOOTH = 0.9
# A loss so many times its best will not come back.
_LOST = 4.0
# The first steps' mean and what follows the minimum say nothing of speed.
_LEAST = 10


@dataclass(frozen=True)
class Point:
    """One step of the test: its rate, its loss and the smoothed loss."""

    lr: float
    loss: float
    smoothed: float


@dataclass(frozen=True)
class LrFound:
    """The steps of a test, and the rate that it suggests for `optimiser.lr`."""

    points: tuple[Point, ...]
    suggestion: float

    def to_csv(self) -> str:
        """Return the points as a table."""
        text = io.StringIO()
        rows = csv.writer(text, lineterminator="\n")
        rows.writerow(("lr", "loss", "smoothed"))
        rows.writerows((f"{p.lr:.6g}", f"{p.loss:.6g}", f"{p.smoothed:.6g}") for p in self.points)
        return text.getvalue()


def find_lr(job: Job, *, steps: int = STEPS, progress: Progress = QUIET) -> LrFound:
    """Run the test on a job's own data and recipe; nothing of it stays but what is returned.

    Assets that the input needs are made in the run's folder, where the training finds them.
    Raises DataError where the loss never falls.
    """
    device = find_device(job.device)
    random = checkpoint.random_state()
    recipe = {**job.recipe, "ema": 0.0, "compile": False}
    data = read_fold(job, progress)
    make_assets(recipe["assets"], TrainingImages.of(data), job.run_dir / "assets", progress)
    recipe |= fitting(job, data, device, progress)
    try:
        state, plan = prepare(replace(job, recipe=recipe), data, device, fresh=True)
        rates = np.geomspace(LOW, HIGH, steps)
        factors = rates / float(recipe["optimiser"]["lr"])
        state.schedule = LambdaLR(
            state.optimiser, lambda step: float(factors[min(step, steps - 1)])
        )
        stepper = Stepper(state, plan)
        losses = _losses(stepper, _windows(plan, device), steps, progress)
    finally:
        checkpoint.set_random_state(random)
    points = smooth(rates, losses)
    return LrFound(tuple(points), suggest(points))


def write(found: LrFound, run_dir: Path) -> Path:
    """Write the table beside a run's folds."""
    path = run_dir.parent / FILE
    durable.write_text(path, found.to_csv())
    return path


def smooth(rates: np.ndarray[Any, Any], losses: list[float]) -> list[Point]:
    """Return the points of a test, with the bias-corrected moving mean of the losses."""
    mean, points = 0.0, []
    for number, (rate, loss) in enumerate(zip(rates, losses, strict=False), 1):
        mean = _SMOOTH * mean + (1 - _SMOOTH) * loss
        points.append(Point(float(rate), loss, mean / (1 - _SMOOTH**number)))
    return points


def suggest(points: list[Point]) -> float:
    """Return the rate of the steepest fall before the smoothed loss's minimum.

    Raises DataError where there is no fall.
    """
    smoothed = np.array([point.smoothed for point in points])
    lowest = int(smoothed.argmin())
    if lowest < _LEAST:
        raise DataError(
            "the loss fell at no learning rate",
            hint="look at the samples with `kagflow check RECIPE --look`; more batch, other loss?",
        )
    logs = np.log([point.lr for point in points[: lowest + 1]])
    slopes = np.gradient(smoothed[: lowest + 1], logs)
    return float(points[int(slopes.argmin())].lr)


def sparkline(points: tuple[Point, ...], width: int = 60) -> str:
    """Draw the smoothed loss as one line of blocks, lowest to highest."""
    blocks = "▁▂▃▄▅▆▇█"
    at = np.linspace(0, len(points) - 1, min(width, len(points))).round().astype(int)
    values = np.array([points[index].smoothed for index in at])
    # What the absurd rates do to the loss would flatten all that matters.
    top = min(values.max(), values[: max(1, len(values) // 2)].max() * 1.2)
    scaled = (np.clip(values, None, top) - values.min()) / max(top - values.min(), 1e-12)
    return "".join(blocks[round(float(one) * (len(blocks) - 1))] for one in scaled)


def _losses(
    stepper: Stepper, windows: Iterator[Window], steps: int, progress: Progress
) -> list[float]:
    found: list[float] = []
    mean, best = 0.0, math.inf
    progress.start("learning rate", steps, "steps")
    for number, window in zip(range(1, steps + 1), windows, strict=False):
        loss, fine = stepper.step(window.batches).read()
        if not fine:
            break
        found.append(loss)
        mean = _SMOOTH * mean + (1 - _SMOOTH) * loss
        smoothed = mean / (1 - _SMOOTH**number)
        best = min(best, smoothed)
        progress.advance()
        if number > _LEAST and smoothed > _LOST * best:
            break
    progress.finish()
    return found


def _windows(plan: Plan, device: torch.device) -> Iterator[Window]:
    """Yield the windows of one epoch after another."""
    feed = Feed(plan.data, workers=plan.workers, device=device)
    for epoch in count():
        feed.begin(plan.batches(epoch))
        yield from feed.windows(plan.accumulate)


def describe(found: LrFound) -> Mapping[str, Any]:
    """Return plain JSON values."""
    return {
        "suggestion": found.suggestion,
        "points": [[p.lr, p.loss, p.smoothed] for p in found.points],
    }

"""The training loop: epochs of optimiser steps, resumable between any two of them."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch

from kagflow import durable
from kagflow.errors import DataError
from kagflow.learn import average, checkpoint
from kagflow.learn.dataset import Samples
from kagflow.learn.distributed import ALONE, Ranks
from kagflow.learn.feed import Feed
from kagflow.learn.figures import figures, seconds_left
from kagflow.learn.losses import Loss
from kagflow.learn.sampler import Draw
from kagflow.learn.state import Line, Running, State
from kagflow.learn.step import Stepper, Told
from kagflow.learn.stop import Stop
from kagflow.progress import QUIET, Progress

# More bad steps in a row than this, and the weights will not come back. fp16's scaler needs up to
# sixteen to find its scale.
HOPELESS = 20
# The end of an epoch is worth a checkpoint after so many seconds, and where the last one took no
# more than this share of the time since.
EPOCH_SECONDS = 20.0
EPOCH_SHARE = 0.01

OnEpoch = Callable[[Line], None]


@dataclass(frozen=True)
class Plan:
    """What stays the same during training.

    `draws(epoch)` lists an epoch's `samples` samples; `save_every` is in seconds. The `average`
    best epochs are kept where there are several, or where `early_stop` epochs without a better
    one end the run. `spent` tells after each step whether a budget allows no other; `ranks` are
    the processes that share each batch.
    """

    folder: Path
    data: Samples
    draws: Callable[[int], list[Draw]]
    samples: int
    loss: Loss
    predicts: str
    epochs: int
    batch: int
    workers: int | None
    device: torch.device
    dtype: torch.dtype
    clip: float
    accumulate: int = 1
    average: int = 1
    early_stop: int | None = None
    save_every: float = 600.0
    seed: int = 0
    spent: Callable[[], bool] = lambda: False
    ranks: Ranks = ALONE

    @property
    def steps(self) -> int:
        """Optimiser steps in all epochs."""
        return self.epochs * steps_an_epoch(self.samples, self.batch, self.accumulate)

    @property
    def kept(self) -> int:
        """How many of the best epochs are kept on disk; 0 where the last weights are the result."""
        return self.average if self.average > 1 or self.early_stop else 0

    def batches(self, epoch: int) -> list[list[Draw]]:
        """Return this process's share of an epoch's batches.

        A short last one goes, unless it is the only one.
        """
        # A batch of one or two images at the end would mislead batch norm.
        draws = self.draws(epoch)
        count = max(len(draws) // self.batch, 1)
        whole = [draws[at * self.batch : (at + 1) * self.batch] for at in range(count)]
        return [self.ranks.share(batch) for batch in whole]

    def over(self, state: State) -> bool:
        """Tell whether the last epoch is done, or too many since the best."""
        patience = self.early_stop or self.epochs
        return state.epoch >= self.epochs or average.since_better(state.history) >= patience


def steps_an_epoch(samples: int, batch: int, accumulate: int) -> int:
    """Return an epoch's optimiser steps; a window of fewer batches may be the last."""
    batches = max(samples // batch, 1)
    return -(-batches // accumulate)


def fit(
    state: State,
    plan: Plan,
    *,
    progress: Progress = QUIET,
    on_epoch: OnEpoch | None = None,
) -> None:
    """Train from wherever `state` is to the last epoch; the last state is on disk at the end.

    `on_epoch` may add to the epoch's line: its `val_score` says which epochs are best. Raises
    KeyboardInterrupt after SIGINT or SIGTERM and BudgetSpent where the budget is, with the state
    saved, and DataError when losses or weights stay no numbers, with the last good checkpoint kept.
    """
    with Stop(plan.spent, plan.ranks.any) as stop:
        _Run(state, plan, stop, progress).all_epochs(on_epoch)


class _Run:
    """Training under way: what changes, what stays, and who helps."""

    def __init__(self, state: State, plan: Plan, stop: Stop, progress: Progress) -> None:
        self.state, self.plan, self.stop, self.progress = state, plan, stop, progress
        self.feed = Feed(plan.data, workers=plan.workers, device=plan.device)
        self.stepper = Stepper(state, plan)
        self.saver = _Saver(state, plan)

    def all_epochs(self, on_epoch: OnEpoch | None) -> None:
        """Do the epochs that are left."""
        state, plan = self.state, self.plan
        if not plan.over(state):
            self.feed.begin(plan.batches(state.epoch)[state.batches :])
        while not plan.over(state):
            self.one_epoch()
            # What comes next is read while this epoch is looked at.
            after = state.epoch + 1
            self.feed.begin(plan.batches(after) if after < plan.epochs else [])
            with state.clock("glance"):
                _close_epoch(state, plan, on_epoch)
            told = state.history[-1] | {"seconds_left": seconds_left(state, plan)}
            self.progress.show(told, whole=True)
            self.stop.look()
            at_once = self.stop.asked or plan.over(state)
            if at_once or self.saver.worthwhile():
                self.saver.save(at_once=at_once)
            if not plan.over(state):
                self.stop.leave(state.step)

    def one_epoch(self) -> None:
        """Do the steps that are left of an epoch, and save when it is time."""
        state, plan = self.state, self.plan
        label, done = f"epoch {state.epoch + 1}/{plan.epochs}", state.batches // plan.accumulate
        self.progress.start(label, plan.steps // plan.epochs, "steps")
        self.progress.advance(done)
        if plan.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(plan.device)
        last: _Step | None = None
        for window in self.feed.windows(plan.accumulate):
            start = time.monotonic()
            plan.ranks.begin_step(plan.seed, state.step)
            step = _Step(self.stepper.step(window.batches), window.drawn)
            state.batches += len(window.drawn)
            state.step += 1
            # A step is judged when the next is on its way, so that the device never waits.
            _judge(state, plan, last)
            last = step
            state.count_time(waited=window.waited, worked=time.monotonic() - start)
            self.progress.advance()
            told = figures(state, plan)
            self.progress.show(told | {"seconds_left": seconds_left(state, plan)})
            self.stop.look()
            if self.stop.asked or self.saver.due():
                _judge(state, plan, last)
                last = None
                self.saver.save(at_once=self.stop.asked)
            self.stop.leave(state.step)
        _judge(state, plan, last)
        self.progress.finish()


@dataclass(frozen=True)
class _Step:
    """What a step told, and which samples it saw."""

    told: Told
    drawn: list[list[Draw]]


def _judge(state: State, plan: Plan, step: _Step | None) -> None:
    """Count a step; raise DataError after too many bad ones, or when the weights are bad."""
    if step is None:
        return
    loss, fine = step.told.read()
    state.running.images += sum(len(batch) for batch in step.drawn) * plan.ranks.count
    if fine:
        state.streak.clear()
        state.running.loss += loss
        state.running.steps += 1
        return
    rows = [plan.data.rows[draw.image] for batch in step.drawn for draw in batch]
    state.streak.append([plan.data.cache.ids[row] for row in rows])
    if len(state.streak) > HOPELESS:
        _give_up(state, plan, f"no number came of more than {HOPELESS} steps in a row")
    _check(state, plan)


def _check(state: State, plan: Plan) -> None:
    if bad := state.broken():
        _give_up(state, plan, f"{len(bad)} tensors are no numbers, the first is {bad[0]}")


def _give_up(state: State, plan: Plan, why: str) -> None:
    path = plan.folder / "bad-batches.json"
    durable.write_json(path, {"step": state.step, "images": state.streak})
    raise DataError(
        f"{why}, up to step {state.step}; {path} lists the images of the bad steps",
        hint="look at those images, lower optimiser.lr, or precision=fp32; the last good "
        f"checkpoint is kept in {plan.folder}",
    )


def _close_epoch(state: State, plan: Plan, on_epoch: OnEpoch | None) -> None:
    lr = max(group["lr"] for group in state.optimiser.param_groups)
    line: Line = figures(state, plan) | {"lr": lr}
    state.epoch, state.batches, state.running = state.epoch + 1, 0, Running()
    state.history.append(line)
    if on_epoch is not None:
        on_epoch(line)
    # What one process saw of the held-out images decides for all.
    line |= plan.ranks.tell(line)
    if plan.ranks.first and line["epoch"] in average.best(state.history, plan.kept):
        average.keep(plan.folder, state.weights, line["epoch"])


class _Saver:
    """Save the state when it is time."""

    def __init__(self, state: State, plan: Plan) -> None:
        self._state, self._plan = state, plan
        self._at, self._took = time.monotonic(), 0.0

    def due(self) -> bool:
        """Tell whether `save_every` seconds passed."""
        return time.monotonic() - self._at >= self._plan.save_every

    def worthwhile(self) -> bool:
        """Tell whether the end of an epoch is worth a checkpoint."""
        return time.monotonic() - self._at >= max(EPOCH_SECONDS, self._took / EPOCH_SHARE)

    def save(self, *, at_once: bool) -> None:
        """Write a checkpoint of weights that are numbers.

        A state amid bad steps may be what makes them bad: it can wait unless `at_once`.
        """
        if self._state.streak and not at_once:
            return
        state, folder, start = self._state, self._plan.folder, time.monotonic()
        with state.clock("save"):
            _check(state, self._plan)
            if self._plan.ranks.first:
                checkpoint.save(folder, state.state_dict(), step=state.step, epoch=state.epoch)
                average.prune(folder, state.history, self._plan.kept)
        self._at = time.monotonic()
        self._took = self._at - start

"""Train one fold of one recipe: data in, a run folder with its out-of-fold store out."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import filelock
import torch

from kagflow import durable
from kagflow.errors import DataError, LocalError, RefusedError
from kagflow.infer.export import save_weights
from kagflow.learn import average, checkpoint, pseudo
from kagflow.learn.assets import TrainingImages, make_assets
from kagflow.learn.begin import begin
from kagflow.learn.budget import Budget, remaining
from kagflow.learn.distributed import ALONE, Ranks
from kagflow.learn.fits import settle
from kagflow.learn.heldout import predict_fold
from kagflow.learn.job import FoldData, Job, read_fold
from kagflow.learn.loop import Plan, fit
from kagflow.learn.outcome import RunResult, finish, paused, result
from kagflow.learn.prepare import device_name, find_device, machine_name, prepare
from kagflow.learn.probe import Probe
from kagflow.learn.state import State
from kagflow.learn.stop import BudgetSpent
from kagflow.naming import FULL, Fold
from kagflow.progress import QUIET, Progress
from kagflow.task.spec import TaskSpec

OnEpoch = Callable[[dict[str, float]], None]


def train_fold(  # noqa: PLR0913 - the room's front door: what to read, where to write, who listens
    run_dir: Path,
    recipe: Mapping[str, Any],
    spec: TaskSpec,
    data: Path,
    *,
    fold: Fold,
    device: str = "auto",
    progress: Progress = QUIET,
    on_epoch: OnEpoch | None = None,
) -> RunResult:
    """Train a fold, or go on with it, or do nothing where run.json says that it is finished.

    `run_dir` is runs/<competition>/<name>/fold<k>, or full for a training on everything; `recipe`
    is a dumped config.Recipe, `data` what fetch wrote. Raises RefusedError where the folder was
    begun from something else, KeyboardInterrupt after a signal, with everything saved.
    """
    return train(Job(run_dir, recipe, spec, data, fold, device), progress, on_epoch)


def train(job: Job, progress: Progress = QUIET, on_epoch: OnEpoch | None = None) -> RunResult:
    """Do what `train_fold` says, in this process."""
    done = train_as(ALONE, job, progress, on_epoch)
    assert done is not None
    return done


def train_as(
    ranks: Ranks, job: Job, progress: Progress = QUIET, on_epoch: OnEpoch | None = None
) -> RunResult | None:
    """Train as one of `ranks`; only the first writes, and returns a result."""
    job.run_dir.mkdir(parents=True, exist_ok=True)
    with _alone(job.run_dir) if ranks.first else nullcontext():
        device = find_device(job.device)
        if ranks.tell(ranks.first and begin(job, str(device), progress)):
            progress.note(f"{job.label} is finished already")
            return result(job.run_dir, fresh=False) if ranks.first else None
        data = ranks.in_turn(lambda: read_fold(job, progress))
        return _Training(job, data, device, progress, ranks).run(on_epoch)


class _Training:
    """A run under way in this process."""

    def __init__(
        self, job: Job, data: FoldData, device: torch.device, progress: Progress, ranks: Ranks
    ) -> None:
        self.job, self.data, self.device, self.progress = job, data, device, progress
        self.assets = ranks.in_turn(
            lambda: make_assets(
                job.recipe["assets"], TrainingImages.of(data), job.run_dir / "assets", progress
            )
        )
        found = checkpoint.newest(job.run_dir)
        self.fitted = settle(job, data, device, ranks, fresh=found is None, progress=progress)
        self.state, plan = prepare(
            replace(job, recipe={**job.recipe, **self.fitted}),
            data,
            device,
            fresh=found is None,
            ranks=ranks,
            progress=progress,
        )
        self.resumed = None if found is None else found.step
        if found is not None:
            _resume(self.state, found, progress)
        self.budget = Budget(job.until)
        self.budget.watch(self.state)
        self.plan = replace(plan, spent=self.budget.spent)
        judged = job.fold != FULL and ranks.first
        self.probe = Probe.choose(data, job.member, job.spec, str(device)) if judged else None

    def run(self, on_epoch: OnEpoch | None) -> RunResult | None:
        """Train to the end or to that of the budget, then predict the held-out images."""
        job, state, plan, first = self.job, self.state, self.plan, self.plan.ranks.first
        note = partial(_note, job, state, self.probe, on_epoch) if first else None
        try:
            fit(state, plan, progress=self.progress, on_epoch=note)
        except BudgetSpent:
            return self.paused() if first else None
        except torch.OutOfMemoryError as error:
            raise _out_of_memory(state, plan) from error
        if not first:
            return None
        if self.budget.lacks(self.prediction()):
            return self.paused()
        chosen = average.best(state.history, plan.kept)
        averaged = average.load_mean(job.run_dir, chosen, state.weights)
        _check_finite(state, job.run_dir)
        save_weights(state.weights, job.member.weights[0])
        each = None
        if job.fold != FULL:
            with state.clock("predict"):
                each = predict_fold(job, self.data, str(self.device), self.progress)
        told: dict[str, Any] = {"seconds_per_image": each, "averaged": averaged}
        told |= {"assets": dict(self.assets), "resolved": self.fitted}
        told |= {"machine": machine_name(self.device), "pseudo": pseudo.told(job.run_dir)}
        finish(job, self.data, state, told, device=device_name(self.device))
        self.progress.note(state.time_split())
        return result(job.run_dir, resumed=self.resumed)

    def prediction(self) -> float:
        """Estimate the seconds of predicting the held-out images from the glances at some."""
        if self.probe is None or not self.state.epoch:
            return 0.0
        seen = self.state.epoch * len(self.probe.rows)
        views = len(self.job.recipe["tta"])
        return 1.2 * self.state.time["glance"] / seen * views * len(self.data.validation)

    def paused(self) -> RunResult:
        """Say what remains."""
        left = remaining(self.state, self.plan, predict=self.prediction())
        return paused(self.job.run_dir, self.state, left, resumed=self.resumed)


def _out_of_memory(state: State, plan: Plan) -> LocalError:
    return LocalError(
        f"{plan.device} ran out of memory after step {state.step}, with batch {plan.batch}",
        hint="end what else uses it and run the same command, which goes on from the last "
        "checkpoint; or train under another name= with less memory=",
    )


def _resume(state: State, found: checkpoint.Found, progress: Progress) -> None:
    state.load_state_dict(found.state)
    for name in found.skipped:
        progress.note(f"{name} is damaged, passing over it")
    progress.note(f"going on from step {found.step}")


def _note(
    job: Job, state: State, probe: Probe | None, on_epoch: OnEpoch | None, line: dict[str, float]
) -> None:
    if probe is not None:
        line |= probe.look(state.weights)
    # Written whole from the state: after a resume no line of a lost epoch is left.
    text = "".join(json.dumps(one, sort_keys=True) + "\n" for one in state.history)
    durable.write_text(job.run_dir / "metrics.jsonl", text)
    if on_epoch is not None:
        on_epoch(dict(line))


def _check_finite(state: State, run_dir: Path) -> None:
    bad = [name for name, value in state.weights.state_dict().items() if not value.isfinite().all()]
    if bad:
        raise DataError(
            f"{run_dir}: {len(bad)} tensors are no numbers after training, the first is {bad[0]}",
            hint="lower optimiser.lr, or precision=fp32, under another name=",
        )


@contextmanager
def _alone(run_dir: Path) -> Iterator[None]:
    lock = filelock.FileLock(run_dir / ".lock")
    try:
        lock.acquire(timeout=0)
    except filelock.Timeout:
        raise RefusedError(
            f"another kagflow is training {run_dir}", hint="wait for it, or stop it with Ctrl-C"
        ) from None
    try:
        yield
    finally:
        lock.release()

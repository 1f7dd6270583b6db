"""Train one fold of one recipe: data in, a run folder with its out-of-fold store out."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import filelock
import torch
from torch import nn

from kagflow import durable
from kagflow.errors import DataError, LocalError, RefusedError, UsageError
from kagflow.infer.export import save_weights
from kagflow.infer.image import INPUTS
from kagflow.learn import average, checkpoint
from kagflow.learn.assets import TrainingImages, make_assets
from kagflow.learn.augment import AUGMENTS
from kagflow.learn.begin import begin
from kagflow.learn.cache import Cache, data_hash
from kagflow.learn.dataset import Samples, Steps
from kagflow.learn.ema import build_ema
from kagflow.learn.heldout import predict_fold, score_fold
from kagflow.learn.job import FoldData, Job, pair, read_fold
from kagflow.learn.loop import Plan, fit
from kagflow.learn.losses import LOSSES
from kagflow.learn.optimiser import SCHEDULES, build_optimiser
from kagflow.learn.pretrained import start_model
from kagflow.learn.probe import Probe
from kagflow.learn.sampler import SAMPLERS, draws
from kagflow.learn.state import State
from kagflow.learn.step import build_scaler, precision
from kagflow.naming import FULL, Fold
from kagflow.progress import QUIET, Progress
from kagflow.resolve import build
from kagflow.task.spec import TaskSpec

OnEpoch = Callable[[dict[str, float]], None]


@dataclass(frozen=True)
class RunResult:
    """What a run is worth: `score` and `floor` on its fold's `images` at default rules.

    They are None for a run on everything, which no image can judge.
    `fresh` is False where the run was finished before and nothing was done; `resumed` is the
    step from which it went on, None from the start. `seconds` is training time.
    """

    run_dir: Path
    score: float | None
    floor: float | None
    nonempty: float | None
    images: int
    seconds: float
    fresh: bool = True
    resumed: int | None = None
    finished: bool = True

    def summary(self) -> dict[str, Any]:
        """Return plain JSON values."""
        return asdict(self) | {"run_dir": str(self.run_dir)}


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
    """Do what `train_fold` says."""
    job.run_dir.mkdir(parents=True, exist_ok=True)
    with _alone(job.run_dir):
        device = _device(job.device)
        if begin(job, str(device), progress):
            progress.note(f"{job.label} is finished already")
            return _result(job.run_dir, fresh=False)
        data = read_fold(job, progress)
        assets = TrainingImages.of(data)
        made = make_assets(job.recipe["assets"], assets, job.run_dir / "assets", progress)
        found = checkpoint.newest(job.run_dir)
        state, plan = _prepare(job, data, device, fresh=found is None)
        if found is not None:
            _resume(state, found, progress)
        judged = job.fold != FULL
        probe = Probe.choose(data, job.member, job.spec, str(device)) if judged else None
        fit(state, plan, progress=progress, on_epoch=partial(_note, job, state, probe, on_epoch))
        chosen = average.best(state.history, plan.kept)
        averaged = average.load_mean(job.run_dir, chosen, state.weights)
        _check_finite(state, job.run_dir)
        save_weights(state.weights, job.member.weights[0])
        each = None
        if judged:
            with state.clock("predict"):
                each = predict_fold(job, data, str(device), progress)
        told = {"seconds_per_image": each, "assets": dict(made), "averaged": averaged}
        _finish(job, data, state, told)
        progress.note(state.time_split())
        return _result(job.run_dir, resumed=None if found is None else found.step)


def _prepare(job: Job, data: FoldData, device: torch.device, *, fresh: bool) -> tuple[State, Plan]:
    recipe = job.recipe
    checkpoint.seed_all(recipe["seed"])
    weights = recipe["weights"] if fresh else "none"
    model = start_model(recipe["model"], classes=data.cache.classes, weights=weights)
    # Channels last is what tensor cores want; on a CPU it measured 1.3 to 1.5 times as fast.
    model = model.to(device).to(memory_format=torch.channels_last)
    plan = _plan(job, data, device)
    loss = plan.loss if isinstance(plan.loss, nn.Module) else None
    optimiser = build_optimiser(model, recipe["optimiser"], loss)
    schedule = build(recipe["schedule"], SCHEDULES, optimiser=optimiser, steps=plan.steps)
    scaler, ema = build_scaler(device, plan.dtype), build_ema(model, recipe["ema"])
    forward = torch.compile(model) if recipe["compile"] else model
    return State(model, ema, optimiser, schedule, scaler, loss=loss, forward=forward), plan


def _plan(job: Job, data: FoldData, device: torch.device) -> Plan:
    recipe, labels = job.recipe, data.labels[data.train]
    samples = recipe["samples"] or len(labels)
    crop = pair(recipe["crop"])
    _check_shapes(data.cache, crop, recipe["batch"])
    steps = Steps(
        crop=crop,
        compose=build(recipe["augment"], AUGMENTS),
        make_input=build(recipe["input"], INPUTS),
        masks=recipe["predicts"] == "mask",
        assets=job.member.assets,
    )
    draw = partial(
        draws,
        build(recipe["sampler"], SAMPLERS),
        labels,
        samples=samples,
        epochs=recipe["epochs"],
        seed=recipe["seed"],
    )
    loss = build(recipe["loss"], LOSSES)
    return Plan(
        folder=job.run_dir,
        data=Samples(data.cache, data.train, labels, steps),
        draws=lambda epoch: draw(epoch=epoch),
        samples=samples,
        loss=loss.to(device) if isinstance(loss, nn.Module) else loss,
        predicts=recipe["predicts"],
        epochs=recipe["epochs"],
        batch=recipe["batch"],
        workers=recipe["workers"],
        device=device,
        dtype=precision(recipe["precision"], device),
        clip=recipe["clip"],
        accumulate=recipe["accumulate"],
        average=recipe["average"],
        # Without a glance no epoch is better than another.
        early_stop=None if job.fold == FULL else recipe["early_stop"],
        save_every=job.save_every,
    )


def _check_shapes(cache: Cache, crop: tuple[int, int] | None, batch: int) -> None:
    if crop is None and batch > 1 and len({tuple(row) for row in cache.rows[:, :2]}) > 1:
        raise UsageError(
            "the images differ in size, so they make no batch",
            hint="set size or crop to [height, width] in the recipe, or batch=1",
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


def _finish(job: Job, data: FoldData, state: State, told: Mapping[str, Any]) -> None:
    score = None if job.fold == FULL else score_fold(job, data)
    manifest = json.loads((job.data / "manifest.json").read_text())
    durable.write_json(
        job.run_dir / "run.json",
        {
            "competition": job.run_dir.parents[1].name,
            "name": job.run_dir.parent.name,
            "fold": job.fold,
            "folds": data.folds,
            "predicts": job.recipe["predicts"],
            "recipe": dict(job.recipe),
            "finished": True,
            "seconds": state.seconds,
            "time": state.time,
            "images": score.images if score else 0,
            "score": score.value if score else None,
            "floor": score.floor if score else None,
            "nonempty": score.nonempty if score else None,
            "per_class": list(score.per_class) if score else None,
            "data": data_hash(job.data),
            "profile": manifest.get("profile"),
            "device": _device_name(_device(job.device)),
            **told,
        },
    )


def _result(run_dir: Path, *, fresh: bool = True, resumed: int | None = None) -> RunResult:
    run = json.loads((run_dir / "run.json").read_text())
    keys = ("score", "floor", "nonempty", "images", "seconds")
    return RunResult(run_dir, **{key: run[key] for key in keys}, fresh=fresh, resumed=resumed)


def _device(name: str) -> torch.device:
    found = torch.cuda.is_available()
    if name == "auto":
        return torch.device("cuda" if found else "cpu")
    if name.startswith("cuda") and not found:
        raise LocalError("no CUDA device is visible here", hint="--device cpu or --device auto")
    try:
        return torch.device(name)
    except RuntimeError:
        raise UsageError(f"no device '{name}'", hint="auto, cpu, cuda or cuda:<n>") from None


def _device_name(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else device.type


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

"""From a recipe to what the loop needs: model, optimiser, data and the plan of the steps."""

from __future__ import annotations

import platform
import re
from functools import partial
from pathlib import Path

import torch
from torch import nn

from kagflow.errors import LocalError, UsageError
from kagflow.infer.image import INPUTS
from kagflow.learn import checkpoint
from kagflow.learn.augment import AUGMENTS
from kagflow.learn.cache import Cache
from kagflow.learn.dataset import Samples, Steps
from kagflow.learn.distributed import ALONE, Ranks
from kagflow.learn.ema import build_ema
from kagflow.learn.job import FoldData, Job, pair
from kagflow.learn.loop import Plan
from kagflow.learn.losses import LOSSES
from kagflow.learn.optimiser import SCHEDULES, build_optimiser
from kagflow.learn.past import Past, build_sampler
from kagflow.learn.pretrained import start_model
from kagflow.learn.pseudo_mix import open_mix
from kagflow.learn.sampler import draws
from kagflow.learn.state import State
from kagflow.learn.step import build_scaler, precision
from kagflow.naming import FULL
from kagflow.progress import QUIET, Progress
from kagflow.resolve import build


def prepare(
    job: Job,
    data: FoldData,
    device: torch.device,
    *,
    fresh: bool,
    ranks: Ranks = ALONE,
    progress: Progress = QUIET,
) -> tuple[State, Plan]:
    """Build state and plan of a job; the recipe's starting weights are read where it is `fresh`."""
    recipe = job.recipe
    checkpoint.seed_all(recipe["seed"])
    weights = recipe["weights"] if fresh else "none"
    model = start_model(
        recipe["model"], classes=data.cache.classes, weights=weights, progress=progress
    )
    # Channels last is what tensor cores want; on a CPU it measured 1.3 to 1.5 times as fast.
    model = ranks.share_statistics(model).to(device).to(memory_format=torch.channels_last)
    plan = _plan(job, data, device, ranks, progress)
    loss = plan.loss if isinstance(plan.loss, nn.Module) else None
    optimiser = build_optimiser(model, recipe["optimiser"], loss)
    schedule = build(recipe["schedule"], SCHEDULES, optimiser=optimiser, steps=plan.steps)
    scaler, ema = build_scaler(device, plan.dtype), build_ema(model, recipe["ema"])
    forward = torch.compile(model) if recipe["compile"] else model
    return State(model, ema, optimiser, schedule, scaler, loss=loss, forward=forward), plan


def _plan(job: Job, data: FoldData, device: torch.device, ranks: Ranks, progress: Progress) -> Plan:
    recipe, labels = job.recipe, data.labels[data.train]
    samples = recipe["samples"] or len(labels)
    crop = pair(recipe["crop"])
    _check_shapes(data.cache, crop, recipe["batch"])
    if min(recipe["batch"], samples) < ranks.count:
        raise UsageError(
            f"batches of {min(recipe['batch'], samples)} can't be shared by {ranks.count} processes"
        )
    steps = Steps(
        crop=crop,
        compose=build(recipe["augment"], AUGMENTS),
        make_input=build(recipe["input"], INPUTS),
        masks=recipe["predicts"] == "mask",
        assets=job.member.assets,
    )
    draw = partial(
        draws,
        ranks.in_turn(lambda: build_sampler(recipe["sampler"], Past.of(job, data, progress))),
        labels,
        samples=samples,
        epochs=recipe["epochs"],
        seed=recipe["seed"],
    )
    loss = build(recipe["loss"], LOSSES)
    known = Samples(data.cache, data.train, labels, steps)
    mix = ranks.in_turn(lambda: open_mix(job, known, str(device), progress))
    return Plan(
        folder=job.run_dir,
        data=known if mix is None else mix.samples,
        draws=lambda epoch: (
            draw(epoch=epoch) if mix is None else mix.draws(draw(epoch=epoch), epoch)
        ),
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
        seed=recipe["seed"],
        ranks=ranks,
    )


def _check_shapes(cache: Cache, crop: tuple[int, int] | None, batch: int) -> None:
    if crop is None and batch > 1 and len({tuple(row) for row in cache.rows[:, :2]}) > 1:
        raise UsageError(
            "the images differ in size, so they make no batch",
            hint="set size or crop to [height, width] in the recipe, or batch=1",
        )


def find_device(name: str) -> torch.device:
    """Return the device that `--device` names, and use it; auto is a GPU where there is one.

    A GPU comes with its number. Raises LocalError for one that is not there, UsageError for another
    word.
    """
    found = torch.cuda.device_count()
    try:
        device = torch.device(("cuda" if found else "cpu") if name == "auto" else name)
    except RuntimeError:
        raise UsageError(f"no device '{name}'", hint="auto, cpu, cuda or cuda:<n>") from None
    if device.type != "cuda":
        return device
    if (device.index or 0) >= found:
        what = f"only {found} of them" if found else "no CUDA device"
        hint = "--device cpu or --device auto"
        raise LocalError(f"{name}: {what} is visible here", hint=hint)
    index = torch.cuda.current_device() if device.index is None else device.index
    torch.cuda.set_device(index)
    return torch.device("cuda", index)


def machine_name(device: torch.device) -> str:
    """Return what a training's speed depends on: the GPU's name, or processors and their model."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    info = Path("/proc/cpuinfo")
    text = info.read_text() if info.is_file() else ""
    found = re.search(r"^model name\s*:\s*(.+)$", text, re.MULTILINE)
    return f"{torch.get_num_threads()} x {found[1] if found else platform.machine()}"


def device_name(device: torch.device) -> str:
    """Return a GPU's own name, or cpu."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else device.type

"""Time kagflow's training loop beside a bare one of torch: same model, data, precision, parts.

Both take the same batches, made beforehand or from the same samples through DataLoader without
workers, and have AdamW, clipping, a cosine schedule and an average of weights from torch. What
kagflow does beyond is what is measured: bad steps change nothing, every step can be stopped at and
resumed from, times are counted.
"""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import data_path
import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from torch.utils.data import DataLoader

from kagflow.infer.models import build_model
from kagflow.learn import checkpoint
from kagflow.learn.dataset import Sample, Samples
from kagflow.learn.ema import build_ema
from kagflow.learn.feed import worker_count
from kagflow.learn.job import Job
from kagflow.learn.loop import Plan, fit
from kagflow.learn.losses import bce_dice
from kagflow.learn.optimiser import build_optimiser, cosine
from kagflow.learn.sampler import Draw, Plain, draws
from kagflow.learn.state import State
from kagflow.learn.step import build_scaler

PAIRS = 9
CPU = torch.device("cpu")
LITE = {"target": "smp", "kwargs": {"arch": "FPN", "encoder": "tu-tf_efficientnet_lite0"}}
SMALL = {"target": "smp", "kwargs": {"arch": "FPN", "encoder": "tu-mobilenetv3_small_050"}}
OPTIMISER = {"target": "adamw", "lr": 1e-3, "weight_decay": 1e-2, "encoder_lr": 0.3}


@dataclass(frozen=True)
class Case:
    """What is trained, on crops of what size, in how many steps of how many images, and where.

    `prepared` batches are made before the clock starts.
    """

    name: str
    model: dict[str, Any]
    crop: tuple[int, int]
    batch: int
    steps: int
    prepared: bool = False
    device: torch.device = CPU
    dtype: torch.dtype = torch.float32


_LITE = Case("FPN on EfficientNet-Lite0, 4 crops of 128x416", LITE, (128, 416), 4, 5)
_SMALL = Case("FPN on MobileNetV3-small-050, 4 crops of 64x64", SMALL, (64, 64), 4, 24)
CASES = tuple(
    replace(
        case, name=f"{case.name}, {'prepared' if prepared else 'from samples'}", prepared=prepared
    )
    for case in (_LITE, _SMALL)
    for prepared in (True, False)
)


@dataclass(frozen=True)
class Took:
    """Seconds on the wall and of the processor, and the weights' sum to compare by."""

    wall: float
    cpu: float
    loss: float


class Prepared(Samples):
    """Samples whose batches lie ready on their device."""

    def __init__(self, samples: Samples, case: Case) -> None:
        super().__init__(samples.cache, samples.rows, samples.labels, samples.steps)
        self.made = [
            samples.finish({key: one.to(case.device) for key, one in samples.batch(drawn).items()})
            for drawn in batches(case, samples)
        ]
        self._at = {drawn[0]: at for at, drawn in enumerate(batches(case, samples))}

    def batch(self, drawn: Sequence[Draw]) -> Sample:
        return self.made[self._at[drawn[0]]]


def parts(case: Case) -> tuple[nn.Module, torch.optim.Optimizer, Any, Any]:
    """Return a seeded model, its optimiser, its schedule and its average."""
    checkpoint.seed_all(0)
    model = build_model(case.model, classes=4)
    model = model.to(case.device, memory_format=torch.channels_last)
    optimiser = build_optimiser(model, OPTIMISER)
    return model, optimiser, cosine(optimiser, steps=case.steps), build_ema(model, 0.999)


def order(case: Case, samples: Samples) -> list[Draw]:
    """Return the draws of one epoch."""
    count = case.steps * case.batch
    return draws(Plain(), samples.labels, samples=count, epoch=0, epochs=1, seed=0)


def batches(case: Case, samples: Samples) -> list[list[Draw]]:
    """Return the same, batch by batch."""
    drawn = order(case, samples)
    return [drawn[at : at + case.batch] for at in range(0, len(drawn), case.batch)]


def ours(case: Case, samples: Samples, folder: Path) -> Took:
    """Train one epoch by kagflow's loop; its checkpoint at the end is not counted."""
    model, optimiser, schedule, ema = parts(case)
    scaler = build_scaler(case.device, case.dtype)
    state = State(model, ema, optimiser, schedule, scaler, forward=model)
    plan = Plan(
        folder=folder,
        data=samples,
        draws=lambda _: order(case, samples),
        samples=case.steps * case.batch,
        loss=bce_dice(),
        predicts="mask",
        epochs=1,
        batch=case.batch,
        workers=workers(case),
        device=case.device,
        dtype=case.dtype,
        clip=1.0,
    )
    saving = [0.0]
    save = checkpoint.save

    def timed_save(*args: Any, **kwargs: Any) -> Path:
        start = time.process_time()
        done = save(*args, **kwargs)
        saving[0] += time.process_time() - start
        return done

    checkpoint.save = timed_save
    try:
        wall, cpu = now(case)
        fit(state, plan)
        ended = now(case)
    finally:
        checkpoint.save = save
    spent = (ended[0] - wall - state.time["save"], ended[1] - cpu - saving[0])
    return Took(*spent, state.history[-1]["loss"])


def bare(case: Case, samples: Samples) -> Took:
    """Train one epoch by a loop as people write it."""
    model, optimiser, schedule, _ = parts(case)
    ema = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(0.999), use_buffers=True)
    scaler = torch.amp.GradScaler(case.device.type, enabled=case.dtype == torch.float16)
    loss_of = bce_dice()
    wall, cpu = now(case)
    total = 0.0
    model.train()
    for batch in bare_batches(case, samples):
        image = batch["image"].to(case.device, non_blocking=True)
        image = image.contiguous(memory_format=torch.channels_last)
        mask = batch["mask"].to(case.device, non_blocking=True).float()
        with torch.autocast(case.device.type, case.dtype, enabled=case.dtype != torch.float32):
            logits = model(image)
        loss = loss_of({"mask": logits.float()}, {"mask": mask})
        optimiser.zero_grad()
        scaler.scale(loss).backward()
        scaler.unscale_(optimiser)
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        scaler.step(optimiser)
        scaler.update()
        ema.update_parameters(model)
        schedule.step()
        total += loss.item()
    ended = now(case)
    return Took(ended[0] - wall, ended[1] - cpu, total / case.steps)


def bare_batches(case: Case, samples: Samples) -> Iterable[Sample]:
    """Return what a bare loop goes through."""
    if isinstance(samples, Prepared):
        return samples.made
    return DataLoader(
        samples,
        batch_sampler=batches(case, samples),
        num_workers=workers(case),
        pin_memory=case.device.type == "cuda",
        # A generator of its own, so that dropout draws the same numbers in both arms.
        generator=torch.Generator(),
    )


def workers(case: Case) -> int:
    """Return how many processes make samples in both arms."""
    return 0 if case.prepared else worker_count(case.device)


def now(case: Case) -> tuple[float, float]:
    """Return the wall's and the processor's clock, when all that was asked of a GPU is done."""
    if case.device.type == "cuda":
        torch.cuda.synchronize(case.device)
    return time.perf_counter(), time.process_time()


def pairs(case: Case, count: int = PAIRS) -> list[tuple[Took, Took]]:
    """Return (ours, bare), alternating which goes first; both end at the same loss."""
    with tempfile.TemporaryDirectory(prefix="kagflow-bench-") as name:
        return compare(case, samples_of(case, Path(name)), Path(name), count)


def samples_of(case: Case, data: Path) -> Samples:
    """Return what a case trains on."""
    samples = data_path.ours(data, data_path.write_frames(data), case.crop)
    return Prepared(samples, case) if case.prepared else samples


def compare(case: Case, samples: Samples, data: Path, count: int) -> list[tuple[Took, Took]]:
    """Return pairs of times; checkpoints lie in `data`."""
    # Half precision rounds in another order.
    near = 1e-4 if case.dtype == torch.float32 else 0.05
    found = []
    for turn in range(count + 1):
        folder = data / f"run{turn}"
        folder.mkdir()
        arms: list[Callable[[], Took]] = [
            partial(ours, case, samples, folder),
            partial(bare, case, samples),
        ]
        took = [arm() for arm in (arms[::-1] if turn % 2 else arms)]
        first, second = took[::-1] if turn % 2 else took
        assert abs(first.loss - second.loss) < near * second.loss, "another training"
        found.append((first, second))
    # The first warms both up.
    return found[1:]


def checkpoint_share() -> tuple[float, float, float]:
    """Return the seconds of saving a full state of a large model, its megabytes, and the share.

    The share is that of the default interval between checkpoints, in seconds.
    """
    spec = {"target": "smp", "kwargs": {"arch": "FPN", "encoder": "tu-tf_efficientnet_b5"}}
    model = build_model(spec, classes=4)
    optimiser = build_optimiser(model, OPTIMISER)
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    optimiser.step()
    state = State(
        model,
        build_ema(model, 0.999),
        optimiser,
        cosine(optimiser, steps=10),
        build_scaler(CPU, torch.float32),
    )
    with tempfile.TemporaryDirectory(prefix="kagflow-bench-") as name:
        took = []
        for step in range(5):
            start = time.perf_counter()
            path = checkpoint.save(Path(name), state.state_dict(), step=step, epoch=0)
            took.append(time.perf_counter() - start)
        size = path.stat().st_size / 1e6
    seconds = sorted(took)[len(took) // 2]
    return seconds, size, seconds / Job.save_every


if __name__ == "__main__":
    torch.set_num_threads(int(sys.argv[2]) if len(sys.argv) > 2 else 1)
    for one in CASES:
        found = pairs(one, int(sys.argv[1]) if len(sys.argv) > 1 else PAIRS)
        ratios = sorted(a.wall / b.wall for a, b in found)
        more = sorted(1000 * (a.cpu - b.cpu) / one.steps for a, b in found)
        print(
            f"{one.name}: {1000 * found[0][1].wall / one.steps:.0f} ms a step, ratio "
            f"{ratios[len(ratios) // 2]:.3f} ({ratios[0]:.3f} to {ratios[-1]:.3f}), "
            f"{more[len(more) // 2]:.2f} ms more of the processor"
        )
    each, megabytes, share = checkpoint_share()
    print(f"a checkpoint: {each:.2f} s, {megabytes:.0f} MB, {share:.2%} of the time between two")

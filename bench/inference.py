"""Time kagflow's inference beside a kernel of 2019 and beside the bare forward of the same models.

All arms see the same JPEG files of generated steel, with the same weights, and write the same
submission: the bench ends with an error where masks are empty or differ. Each arm has a process of
its own, which keeps memory as kagflow's kernel does, or does not, as the kernel of 2019. Loading
the models is not counted. What the host does beside the models (reading, areas, run lengths, the
CSV) is timed with models that are next to nothing, on one thread: on a GPU it is what limits.
"""

from __future__ import annotations

import csv
import os
import statistics
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from multiprocessing import get_context
from pathlib import Path

import cv2
import inference_world as iw
import kernel2019
import torch

from kagflow.infer import lane, memory
from kagflow.infer.backend import Backend
from kagflow.infer.decode import decode, to_batch
from kagflow.infer.engine import Settings, predict
from kagflow.infer.image import read_grey
from kagflow.infer.members import load_member
from kagflow.task.rle import decode as decode_rle
from kagflow.task.submission import Writer

PAIRS, FRAMES, HOST_FRAMES, BATCH = 5, 8, 48, 4
YEAR = "2019"
# What is compared; the first three pairs write the same masks.
AGAINST = (
    ("ours", YEAR),
    ("ours gated", f"{YEAR} gated"),
    ("onnx gated", f"{YEAR} gated"),
    ("ours", "bare"),
    ("ours gated", "ours"),
)
SMALL = {"target": "inference_world:Small", "kwargs": {}}
Rows = dict[str, str]


@dataclass(frozen=True)
class Took:
    """Seconds of a run: on the wall, of the processor, and of the processor beside the models.

    `setup` is what a back end took beforehand.
    """

    wall: float
    cpu: float
    host: float
    setup: float = 0.0


class Arm:
    """A way to predict a world, in a process of its own; `run(target)` tells what it took."""

    def __init__(self, name: str, run: Callable[[Path], Took], *, cores: int) -> None:
        self.name, self._run = name, run
        keeps = not name.startswith(YEAR)
        self._process = ProcessPoolExecutor(
            1, mp_context=get_context("spawn"), initializer=_begin, initargs=(cores, keeps)
        )

    def run(self, folder: Path) -> Took:
        """Run once, writing below `folder`."""
        return self._process.submit(self._run, folder / f"{self.name}.csv").result()

    def close(self) -> None:
        """End the process."""
        self._process.shutdown()


def _begin(cores: int, keeps: bool) -> None:  # noqa: FBT001 - the pool passes it by place
    if keeps:
        assert memory.keep(), "this C library keeps no memory"
    torch.set_num_threads(cores)
    cv2.setNumThreads(cores)
    # Deprecated since, as tracing is.
    warnings.simplefilter("ignore")


def ours(world: iw.World, target: Path, *, gate: bool, onnx: bool = False) -> Took:
    """Predict as the kernel does, from when the models are loaded."""
    members = [one for one in world.members if gate or one.predicts == "mask"]
    begun, told = [0.0, 0.0], []

    def loaded(*said: object) -> None:
        told.extend(said)
        begun[:] = time.perf_counter(), time.process_time()

    sample = read_grey(world.files[0][1])
    backend = Backend(sample, len(world.files), forced=True, say=loaded) if onnx else None
    chosen = Settings(batch=BATCH, on_load=loaded, backend=backend)
    with device_clock() as spent, Writer(target, iw.SPEC, world.sample) as writer:
        for found in predict(members, world.rules, iw.SPEC, world.files, settings=chosen):
            assert not found.fault
            writer.add(found.image_id, found.rows)
    wall, cpu = time.perf_counter() - begun[0], time.process_time() - begun[1]
    assert backend is None or len(backend.setups) == len(members), told
    return Took(wall, cpu, cpu - spent[0], sum(backend.setups) if backend else 0.0)


@contextmanager
def device_clock() -> Iterator[list[float]]:
    """Yield what a device would do, in seconds of the processor: all of a lane but its input."""
    spent, run, batch = [0.0], lane.Lane.run, lane.to_batch

    def timed(sign: int, job: Callable, *args: object) -> object:
        start = time.thread_time()
        done = job(*args)
        spent[0] += sign * (time.thread_time() - start)
        return done

    lane.Lane.run = lambda *args: timed(1, run, *args)
    lane.to_batch = lambda *args: timed(-1, batch, *args)
    try:
        yield spent
    finally:
        lane.Lane.run, lane.to_batch = run, batch


def of2019(world: iw.World, target: Path, *, gate: bool) -> Took:
    """Predict as a kernel of 2019 does."""
    traced = list(zip(world.members, world.traced, strict=True))
    gates = [path for one, path in traced if one.predicts == "label" and gate]
    kernel = kernel2019.Kernel(
        world.folder / "test_images",
        [path for one, path in traced if one.predicts == "mask"],
        gates[0] if gates else None,
        iw.VIEWS,
        [rule.gate for rule in world.rules],
        [rule.threshold for rule in world.rules],
        [rule.min_area for rule in world.rules],
        mean=0.449,
        std=0.226,
        batch=BATCH,
    )
    loaded = kernel2019.load(kernel)
    start, cpu = time.perf_counter(), time.process_time()
    kernel2019.run(kernel, loaded, world.names, target)
    took, cpu = time.perf_counter() - start, time.process_time() - cpu
    return Took(took, cpu, cpu - kernel.forward[1])


def bare(world: iw.World, _: Path) -> Took:
    """Pass every batch, views and all, through every segmenter: the forward and nothing else."""
    segmenters = [one for one in world.members if one.predicts == "mask"]
    modules = [load_member(one, len(iw.SPEC.classes), "cpu")[0] for one in segmenters]
    items = list(decode(segmenters, world.files))
    groups = [to_batch(items[at : at + BATCH], 0, "cpu") for at in range(0, len(items), BATCH)]
    batches = [
        one.contiguous(memory_format=torch.channels_last)
        for group in groups
        for one in (group, group.flip(3))
    ]
    with torch.inference_mode():
        start, cpu = time.perf_counter(), time.process_time()
        for batch in batches:
            for module in modules:
                module(batch)
        return Took(time.perf_counter() - start, time.process_time() - cpu, 0.0)


def compare(
    arms: list[Arm], folder: Path, count: int, same: Sequence[tuple[str, str]]
) -> dict[str, list[Took]]:
    """Return what each arm took in so many rounds, the order turned every time.

    A first round warms all up; ends there where files of `same` arms differ.
    """
    found: dict[str, list[Took]] = {arm.name: [] for arm in arms}
    try:
        for turn in range(count + 1):
            for arm in arms[::-1] if turn % 2 else arms:
                found[arm.name].append(arm.run(folder))
            for mine, theirs in same if turn in {0, count} else ():
                check(folder / f"{mine}.csv", folder / f"{theirs}.csv")
    finally:
        for arm in arms:
            arm.close()
    return {name: took[1:] for name, took in found.items()}


def check(mine: Path, theirs: Path) -> float:
    """Return the mean Dice of rows that are not empty in both files.

    Raises AssertionError where it is below .999, or fewer than one row of ten holds a mask.
    """
    first, second = read(mine), read(theirs)
    assert first.keys() == second.keys(), "other rows"
    filled = [key for key in first if first[key] or second[key]]
    assert len(filled) >= len(first) / 10, f"{len(filled)} of {len(first)} rows hold a mask"
    score = statistics.mean(dice(first[key], second[key]) for key in filled)
    assert score >= 0.999, f"masks differ: mean Dice {score:.5f}"
    return score


def read(path: Path) -> Rows:
    """Return a submission's rows."""
    with path.open(newline="") as file:
        return {row["ImageId_ClassId"]: row["EncodedPixels"] for row in csv.DictReader(file)}


def dice(first: str, second: str) -> float:
    """Return the Dice of two masks, of which one is not empty."""
    one, two = (decode_rle(text, 256, 1600) for text in (first, second))
    return 2.0 * int((one & two).sum()) / int(one.sum() + two.sum())


def measure(count: int = PAIRS) -> dict[str, list[Took]]:
    """Time whole runs on all cores: ours and 2019's, with a gate and without, and the forward."""
    cores = os.cpu_count() or 1
    with tempfile.TemporaryDirectory(prefix="kagflow-bench-") as name:
        folder = Path(name)
        world = iw.make(folder / "world", FRAMES)
        jobs: dict[str, Callable[[Path], Took]] = {
            "ours": partial(ours, world, gate=False),
            YEAR: partial(of2019, world, gate=False),
            "bare": partial(bare, world),
            "ours gated": partial(ours, world, gate=True),
            f"{YEAR} gated": partial(of2019, world, gate=True),
            "onnx gated": partial(ours, world, gate=True, onnx=True),
        }
        arms = [Arm(title, job, cores=cores) for title, job in jobs.items()]
        return compare(arms, folder, count, AGAINST[:3])


def host(count: int = PAIRS) -> dict[str, list[float]]:
    """Time what the host does beside two small models: seconds of the processor an image."""
    with tempfile.TemporaryDirectory(prefix="kagflow-bench-") as name:
        folder = Path(name)
        world = iw.make(folder / "world", HOST_FRAMES, [SMALL, SMALL], [])
        jobs: dict[str, Callable[[Path], Took]] = {
            "ours": partial(ours, world, gate=False),
            YEAR: partial(of2019, world, gate=False),
        }
        arms = [Arm(title, job, cores=1) for title, job in jobs.items()]
        found = compare(arms, folder, count, AGAINST[:1])
    return {title: [each.host / HOST_FRAMES for each in took] for title, took in found.items()}


def pairs(found: dict[str, list[Took]], mine: str, theirs: str) -> list[tuple[float, float]]:
    """Return (mine, theirs) on the wall, round by round."""
    return [(a.wall, b.wall) for a, b in zip(found[mine], found[theirs], strict=True)]


if __name__ == "__main__":
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else PAIRS
    beside = host(rounds)
    for arm, each in beside.items():
        print(f"host, {arm}: {[round(1000 * one, 1) for one in each]} ms an image")
    runs = measure(rounds)
    for arm, each in runs.items():
        print(f"{arm}: {[round(1000 * t.wall / FRAMES) for t in each]} ms an image")
    for mine, theirs in AGAINST:
        ratios = sorted(a / b for a, b in pairs(runs, mine, theirs))
        middle = statistics.median(ratios)
        print(f"{mine} / {theirs}: {middle:.3f} ({ratios[0]:.3f} to {ratios[-1]:.3f})")

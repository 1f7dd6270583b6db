"""Find what fits the device before the first epoch, instead of losing a run in its midst.

Where a batch does not fit it is halved and `accumulate` doubled, so that a step sees as many images
as before; under a cap that even so is too small, the crop's width is halved.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch

from kagflow.errors import LocalError
from kagflow.learn import checkpoint
from kagflow.learn.begin import resolve, resolved
from kagflow.learn.dataset import Sample
from kagflow.learn.distributed import Ranks
from kagflow.learn.job import FoldData, Job, pair
from kagflow.learn.loop import Plan
from kagflow.learn.prepare import prepare
from kagflow.learn.room import Room, lacks_memory, open_room
from kagflow.learn.sampler import Draw
from kagflow.learn.step import Stepper
from kagflow.progress import QUIET, Progress

HALVINGS = 3
# Narrower crops than this show an encoder less than one cell of its deepest features a side.
NARROWEST = 64


@dataclass(frozen=True)
class Fit:
    """What fits: the recipe's keys that had to change, and the peak in bytes of what then runs."""

    changes: dict[str, Any]
    peak: int


def settle(
    job: Job,
    data: FoldData,
    device: torch.device,
    ranks: Ranks,
    *,
    fresh: bool,
    progress: Progress = QUIET,
) -> dict[str, Any]:
    """Return the recipe's keys with the values that fit, found where the run is `fresh`.

    They are the run's own for good: they stand in config.yaml, and every resume takes them. On a
    CPU nothing is looked for unless the job caps the memory.
    """
    if not _watched(job, device):
        return resolved(job.run_dir)
    # The cap holds for every process, and for a run that goes on.
    open_room(device, job.memory)
    if not fresh:
        return resolved(job.run_dir)

    def found() -> dict[str, Any]:
        changes = fitting(job, data, device, progress, shares=ranks.count)
        resolve(job.run_dir, changes)
        return changes

    return ranks.tell(found() if ranks.first else {})


def fitting(
    job: Job, data: FoldData, device: torch.device, progress: Progress, *, shares: int = 1
) -> dict[str, Any]:
    """Return the recipe's keys that must change so that it fits, and say so; caps the device."""
    if not _watched(job, device):
        return {}
    room = open_room(device, job.memory)
    changes = find_fit(job, data, device, room, shares=shares).changes
    if changes:
        progress.note(say(changes, room))
    return changes


def _watched(job: Job, device: torch.device) -> bool:
    return device.type == "cuda" or job.memory is not None


def find_fit(job: Job, data: FoldData, device: torch.device, room: Room, *, shares: int = 1) -> Fit:
    """Take real steps with ever less at once until they fit; leaves nothing behind.

    `shares` processes divide each batch. Raises LocalError where not even the least fits.
    """
    tried = []
    random = checkpoint.random_state()
    try:
        for changes in _candidates(job.recipe, shares, narrow=job.memory is not None):
            recipe = {**job.recipe, **changes}
            tried.append(_named(recipe))
            # A compiled model takes no more, and compiling it takes minutes.
            recipe |= {"compile": False, "batch": -(-recipe["batch"] // shares)}
            if (peak := _peak(replace(job, recipe=recipe), data, device, room)) is not None:
                return Fit(changes, peak)
    finally:
        checkpoint.set_random_state(random)
    raise _too_small(job, room, tried)


def say(changes: Mapping[str, Any], room: Room) -> str:
    """Say what was changed so that it fits."""
    of = "the device" if room.limit is None else gigabytes(room.limit)
    now = ", ".join(f"{key} {value}" for key, value in changes.items())
    return f"the recipe's batch does not fit {of}: training with {now}"


def gigabytes(size: float) -> str:
    """Write bytes as people say them."""
    return f"{size / 1e9:.2f} GB" if size < 1e9 else f"{size / 1e9:.1f} GB"


def _candidates(
    recipe: Mapping[str, Any], shares: int, *, narrow: bool
) -> Iterator[dict[str, Any]]:
    """Yield what to try: the recipe's own, up to three halvings, then narrower crops."""
    yield {}
    whole = recipe["batch"] * recipe["accumulate"]
    batch, changes = recipe["batch"], dict[str, Any]()
    for _ in range(HALVINGS):
        if batch // 2 < shares:
            break
        batch //= 2
        # An odd batch has no half: the step then sees as nearly as many images as can be.
        changes = {"batch": batch, "accumulate": max(1, (2 * whole + batch) // (2 * batch))}
        yield changes
    crop = pair(recipe["crop"])
    while narrow and crop is not None and crop[1] // 2 >= NARROWEST:
        crop = (crop[0], crop[1] // 2)
        yield changes | {"crop": list(crop)}


def _peak(job: Job, data: FoldData, device: torch.device, room: Room) -> int | None:
    """Return the peak in bytes, None where memory lacks."""
    try:
        with room.watched():
            _take_steps(job, data, device)
    except (RuntimeError, MemoryError) as error:
        if lacks_memory(error):
            return None
        raise
    return room.peak


def _take_steps(job: Job, data: FoldData, device: torch.device) -> None:
    state, plan = prepare(job, data, device, fresh=False)
    window, stepper = _window(plan), Stepper(state, plan)
    # Only the second step meets the optimiser's own tensors at the height of the first's.
    for _ in range(2):
        stepper.step(window).read()


def _window(plan: Plan) -> list[Sample]:
    """Return the largest batches of a step: the first's gradients stand during the second."""
    rows, cache = plan.data.rows, plan.data.cache

    def area(draw: Draw) -> int:
        height, width = cache.rows[rows[draw.image], :2]
        return int(height) * int(width)

    batches = plan.batches(0)[: min(plan.accumulate, 2)]
    if plan.data.steps.crop is None and plan.batch == 1:
        batches = [[max(plan.draws(0), key=area)]] * len(batches)
    return [plan.data.batch(batch) for batch in batches]


def _named(recipe: Mapping[str, Any]) -> str:
    crop = "" if recipe["crop"] is None else f" of {'x'.join(map(str, recipe['crop']))}"
    return f"{recipe['batch']}{crop}"


def _too_small(job: Job, room: Room, tried: list[str]) -> LocalError:
    where = "this device" if room.limit is None else f"memory={gigabytes(room.limit)}"
    hint = "a smaller crop, size or encoder"
    if job.memory is None and job.recipe["crop"] is not None:
        hint += "; under memory=<what it has> the crop may be narrowed too"
    return LocalError(
        f"{job.label} does not fit {where}: batches of {', '.join(tried)} were tried", hint=hint
    )

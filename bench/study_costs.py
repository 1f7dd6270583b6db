"""How much longer an image takes in a training than in the reference: measured once, then kept.

    python study_costs.py WORKSPACES DATA TRAINING...

Steps of both alternate, data included, on one thread, by the processor's clock; costs.json is
written only where it holds nothing yet, and not where the machine is too busy to tell.
"""

from __future__ import annotations

import argparse
import itertools
import json
import statistics
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from unittest import mock

import plain_smp
import study_arms as arms
import study_train
import torch
from quality_train import ARENAS, FOLD, Place
from torch.optim.optimizer import register_optimizer_step_post_hook

from kagflow import durable, resources
from kagflow.learn.job import Job
from kagflow.learn.tryout import try_out
from kagflow.task.labels import read_labels

# Pairs of measurements at least and at most.
FEW, MANY = 3, 7
# By how much the three ratios in the middle may differ: the median of three so far apart is
# within a fifth, and a fifth more or fewer images is less to a score than another seed.
STEADY = 1.4
# Steps of a script; the first builds what later ones reuse.
STEPS = 6


def recipe_seconds(place: Place, name: str) -> float:
    """Return the seconds of an image in steps of a recipe, its data included."""
    recipe = arms.recipe(place, name, 0, place.arena.images).model_dump(mode="json")
    job = Job(place.root / "unused", recipe, place.spec, place.data, FOLD, "cpu")
    # What counts is the processor's time: others use the machine as well.
    with mock.patch.object(time, "monotonic", time.process_time):
        return try_out(job, torch.device("cpu")).image


def script_seconds(place: Place, name: str) -> float:
    """Return the seconds of an image in steps of a script, its data included."""
    files = place.files(held_out=False)
    truth = read_labels(place.data / place.spec.train_csv, place.spec)
    whole = arms.script(place, name, 0, 0)
    at: list[float] = []
    hook = register_optimizer_step_post_hook(lambda *_: at.append(time.process_time()))
    plain_smp.train(replace(whole, images=STEPS * whole.batch), files, truth)
    hook.remove()
    return statistics.median(b - a for a, b in itertools.pairwise(at)) / whole.batch


def probe(place: Place, name: str) -> list[list[float]]:
    """Return seconds an image of a training and of the reference, in turns until they are steady.

    There are MANY of them where they never are.
    """
    of = script_seconds if arms.TRAININGS[name].script else recipe_seconds
    pair = (partial(of, place, name), partial(recipe_seconds, place, arms.REFERENCE))
    took: list[list[float]] = []
    while len(took) < MANY and cost_of(took) is None:
        took.append([one() for one in pair])
        said = ", reference ".join(f"{1000 * one:.1f} ms" for one in took[-1])
        print(f"{place.arena.name} {name}: {said}", flush=True)
    return took


def cost_of(took: Sequence[Sequence[float]]) -> float | None:
    """Return the median ratio of a training and the reference; None where it is not steady.

    Whatever else runs slows both of a pair, so the ratio of neighbours holds where times do not;
    but it slows a wide model more than a thin one, and a budget that comes of such times would
    starve an arm in every session after.
    """
    ratios = sorted(ours / reference for ours, reference in took)
    out = max(0, len(ratios) - 3) // 2
    middle = ratios[out : len(ratios) - out]
    if len(ratios) < FEW or max(middle) > STEADY * min(middle):
        return None
    return statistics.median(ratios)


def keep(data: str, name: str, cost: float, path: Path = arms.COSTS) -> None:
    """Write a cost down; one that is there already stays."""
    value = json.loads(path.read_text()) if path.is_file() else {"costs": {}}
    value["machine"] = value.get("machine", study_train.machine())
    value["costs"].setdefault(data, {}).setdefault(name, round(cost, 3))
    durable.write_json(path, value)


def main() -> None:
    """Probe what is named and not known yet."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("root", type=Path)
    parser.add_argument("data", choices=sorted(ARENAS))
    parser.add_argument("training", nargs="+", choices=sorted(arms.TRAININGS))
    given = parser.parse_args()
    torch.set_num_threads(1)
    sys.path.insert(0, str(resources.competitions()))
    place = Place(given.root.resolve() / given.data, ARENAS[given.data])
    for name in given.training:
        if arms.TRAININGS[name].probed and name not in arms.costs().get(given.data, {}):
            cost = cost_of(probe(place, name))
            if cost is None:
                sys.exit(f"{given.data} {name}: the machine is busy, its cost is not kept")
            keep(given.data, name, cost)


if __name__ == "__main__":
    main()

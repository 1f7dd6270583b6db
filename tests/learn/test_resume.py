"""A run that was stopped anywhere ends with the very bits of one that was not."""

from __future__ import annotations

import json
import os
import random
import signal
import sys
import time

import pytest
from safetensors.torch import load_file

from kagflow.learn import checkpoint
from kagflow.learn.job import Job
from kagflow.learn.train import train
from kagflow.process import spawn
from kagflow.progress import QUIET

EPOCHS = 4
BATCHES = 3
# The first step, both sides of an epoch's end, and some in the midst.
STOPS = (1, BATCHES, BATCHES + 1, *random.Random(7).sample(range(5, EPOCHS * BATCHES), 3))
# Six batches an epoch, so windows of four and two; the loss has weights of its own.
WINDOWS = {
    "batch": 2, "accumulate": 4, "average": 2, "ema": 0.0,
    "schedule": {"target": "onecycle", "kwargs": {}},
    "loss": {"target": "tiny_losses:Weighed", "kwargs": {}},
}  # fmt: skip
# No rate, so no epoch is better than the first: the run ends after the third of four.
EARLY = {"early_stop": 2, "ema": 0.0, "workers": 1, "schedule": {"target": "constant"}} | {
    "optimiser": {"target": "sgd", "lr": 1e-12, "weight_decay": 0.0, "encoder_lr": 1.0,
                  "kwargs": {"momentum": 0.9}},
}  # fmt: skip


@pytest.fixture
def job(squares, spec, recipe, run_dir):
    def make(name: str, **changes) -> Job:
        folder = run_dir.parents[1] / name / "fold0"
        sampler = {"target": "balanced", "kwargs": {}}
        augment = {"target": "light", "kwargs": {}}
        whole = recipe(epochs=EPOCHS, crop=[48, 48], sampler=sampler, augment=augment) | changes
        return Job(folder, whole, spec, squares, 0, "cpu")

    return make


@pytest.mark.parametrize(
    ("changes", "stops", "epochs"),
    [
        ({}, STOPS, EPOCHS),
        ({"workers": 2}, STOPS[3:4], EPOCHS),
        (WINDOWS, range(1, 8), EPOCHS),
        (WINDOWS | {"workers": 2}, (5,), EPOCHS),
        (EARLY, range(2, 7), 3),
    ],
    ids=["plain", "workers", "windows", "windows-workers", "early"],
)
def test_resume_is_exact_from_any_step(stop_at, differences, job, changes, stops, epochs):
    """Twenty stops in all, by two signals, and with other numbers of workers than none."""
    whole = job("whole", **changes | {"workers": 0})
    train(whole)
    for step in stops:
        stopped = job(f"stopped-{step}", **changes)
        number = signal.SIGTERM if step % 2 else signal.SIGINT
        with pytest.raises(KeyboardInterrupt, match=f"step {step};"):
            train(stopped, stop_at(step, number))
        assert checkpoint.newest(stopped.run_dir).step == step
        assert not (stopped.run_dir / "run.json").exists()
        assert train(stopped).resumed == step
        assert differences(whole, stopped) == []
        ours, theirs = (load_file(j.run_dir / "best.safetensors") for j in (whole, stopped))
        assert max(float((ours[k] - theirs[k]).abs().max()) for k in ours) == 0
        assert len((stopped.run_dir / "metrics.jsonl").read_text().splitlines()) == epochs


@pytest.mark.parametrize(
    ("forgotten", "changes"),
    [
        *((part, {}) for part in ("random", "optimiser", "schedule", "ema", "batches", "running")),
        ("schedule", WINDOWS),
        ("loss", WINDOWS),
        ("history", WINDOWS),
        ("history", EARLY),
    ],
)
def test_each_part_of_the_state_matters(stop_at, differences, job, forgotten, changes, monkeypatch):
    """Drop one part at the resume: the bits must differ, or the test above proves nothing."""
    from kagflow.learn.state import State

    whole, stopped = job("whole", **changes), job("stopped", **changes)
    train(whole)
    with pytest.raises(KeyboardInterrupt):
        train(stopped, stop_at(5, signal.SIGTERM))
    load = State.load_state_dict

    def forget(self, saved):
        fresh = self.state_dict()
        load(self, saved | {forgotten: fresh[forgotten]})

    monkeypatch.setattr(State, "load_state_dict", forget)
    train(stopped)
    assert differences(whole, stopped)


def test_handlers_are_put_back(stop_at, job):
    before = signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        train(job("stopped"), stop_at(2, signal.SIGTERM))
    assert (signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)) == before


SCRIPT = """
import json, sys
from pathlib import Path
import torch
from kagflow.learn.job import Job
from kagflow.learn.train import train
from kagflow.task.spec import TaskSpec
torch.set_num_threads(1)
given = json.loads(sys.argv[1])
train(Job(Path(given["run_dir"]), given["recipe"], TaskSpec.from_dict(given["spec"]),
          Path(given["data"]), 0, "cpu", save_every=0))
"""


def test_a_kill_in_the_midst_of_saving_loses_no_more_than_a_step(differences, job, plugins):
    killed, whole = job("killed"), job("whole")
    given = {
        "run_dir": str(killed.run_dir), "recipe": killed.recipe,
        "spec": killed.spec.to_dict(), "data": str(killed.data),
    }  # fmt: skip
    env = os.environ | {"PYTHONPATH": str(plugins)}
    with (killed.data / "log").open("wb") as log:
        child = spawn([sys.executable, "-c", SCRIPT, json.dumps(given)], env=env, stderr=log)
        deadline = time.monotonic() + 90
        while not (killed.run_dir / "ckpt-4.json").exists():
            assert child.poll() is None, (killed.data / "log").read_text()
            assert time.monotonic() < deadline
            time.sleep(0.001)
        child.kill()
        child.wait()
    assert checkpoint.newest(killed.run_dir).step >= 4
    train(whole, QUIET)
    assert train(killed).resumed >= 4
    assert differences(whole, killed) == []

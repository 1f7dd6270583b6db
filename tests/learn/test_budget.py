"""A budget ends training with everything saved and says what remains."""

from __future__ import annotations

import time

import pytest
import torch
from safetensors.torch import load_file

from kagflow.learn import budget, checkpoint
from kagflow.learn.budget import Budget
from kagflow.learn.job import Job
from kagflow.learn.train import train


class Clock:
    """Stand in for the time module."""

    def __init__(self):
        self.now = 100.0

    def monotonic(self):
        return self.now


@pytest.fixture
def clock(monkeypatch):
    clock = Clock()
    monkeypatch.setattr(budget, "time", clock)
    return clock


@pytest.fixture
def job(squares, spec, recipe, run_dir):
    def make(name, until=None):
        folder = run_dir.parents[1] / name / "fold0"
        return Job(folder, recipe(epochs=4), spec, squares, 0, "cpu", until=until)

    return make


def test_a_step_is_begun_only_where_the_slowest_so_far_would_fit(clock):
    ends = Budget(100 + 60)
    assert not ends.spent()
    clock.now += 20
    assert not ends.spent()
    clock.now += 2
    assert not ends.spent()
    clock.now += 8
    # 30 s are left: the step of 20 s, with half as much again, and a save of 1 s do not fit.
    assert ends.spent()
    assert Budget(None).spent() is False


def test_a_large_state_needs_more_room(clock):
    class State:
        model = torch.nn.Linear(5_000, 5_000)

    ends = Budget(110)
    assert not ends.spent()
    ends.watch(State())
    assert ends.spent()


def test_a_spent_budget_saves_and_the_same_run_goes_on_to_the_same_end(job, monkeypatch):
    whole, cut = job("whole"), job("cut", until=time.monotonic() + 1e6)
    train(whole)
    # After each of three steps, at the epoch's end, after the fourth; the fifth is the last.
    asked = iter([False] * 5 + [True] * 9)
    monkeypatch.setattr(Budget, "spent", lambda self: next(asked))
    paused = train(cut)
    assert (paused.remaining.step, paused.remaining.steps) == (5, 12)
    assert paused.remaining.epochs == pytest.approx(7 / 3)
    assert paused.remaining.seconds > 0
    assert paused.score is None
    assert paused.summary()["finished"] is False
    assert paused.summary()["remaining"]["step"] == 5
    assert checkpoint.newest(cut.run_dir).step == 5
    assert not (cut.run_dir / "run.json").exists()
    monkeypatch.undo()
    done = train(job("cut", until=time.monotonic() + 1e6))
    assert (done.resumed, done.remaining) == (5, None)
    assert done.summary()["finished"] is True
    ours, theirs = (load_file(one.run_dir / "best.safetensors") for one in (whole, cut))
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)


def test_training_may_end_where_the_prediction_would_not_fit(job, monkeypatch):
    cut = job("cut", until=time.monotonic() + 1e6)
    asked = []
    monkeypatch.setattr(Budget, "lacks", lambda self, seconds: asked.append(seconds) or True)
    paused = train(cut)
    assert (paused.remaining.step, paused.remaining.steps, paused.remaining.epochs) == (12, 12, 0)
    assert asked[0] > 0
    assert paused.remaining.seconds == pytest.approx(asked[0], rel=0.5)
    monkeypatch.undo()
    assert train(job("cut")).resumed == 12


def test_a_budget_that_is_over_stops_after_a_step(job):
    paused = train(job("late", until=time.monotonic()))
    assert paused.remaining.step == 1

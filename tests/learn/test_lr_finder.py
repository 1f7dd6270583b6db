"""The range test: what it suggests on made-up curves, and that it leaves nothing behind."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from kagflow.errors import DataError
from kagflow.learn import checkpoint, lr_finder
from kagflow.learn.job import Job
from kagflow.learn.lr_finder import find_lr, smooth, suggest
from kagflow.learn.train import train


def curve(steepest: float, lowest: float) -> list[float]:
    """Return losses that fall fastest at one rate, are least at a later one, then explode."""
    losses = []
    for rate in np.geomspace(lr_finder.LOW, lr_finder.HIGH, 100):
        fall = 1 / (1 + (rate / steepest) ** 2)
        losses.append(0.2 + fall + (rate / (3 * lowest)) ** 4)
    return losses


@pytest.mark.parametrize(("steepest", "lowest"), [(1e-3, 1e-1), (1e-4, 3e-3), (3e-3, 3e-1)])
def test_the_steepest_fall_is_suggested(steepest, lowest):
    points = smooth(np.geomspace(lr_finder.LOW, lr_finder.HIGH, 100), curve(steepest, lowest))
    # The moving mean lags some steps behind, towards greater rates.
    assert steepest / 2 < suggest(points) < min(steepest * 12, lowest)


def test_a_loss_that_never_falls_is_said():
    rates = np.geomspace(1e-6, 1, 100)
    with pytest.raises(DataError, match="fell at no learning rate"):
        suggest(smooth(rates, [1 + rate for rate in rates]))


def test_smoothing_corrects_its_start():
    points = smooth(np.geomspace(1e-6, 1, 5), [3.0] * 5)
    assert all(point.smoothed == pytest.approx(3.0) for point in points)


def test_it_finds_a_rate_that_trains_and_leaves_nothing(squares, spec, recipe, run_dir):
    # The recipe's own rate does not matter to the test.
    slow = {"target": "adamw", "lr": 1e-9, "weight_decay": 0.0, "encoder_lr": 1.0, "kwargs": {}}
    job = Job(run_dir, recipe(optimiser=slow, epochs=6), spec, squares, 0, "cpu")
    before = checkpoint.random_state()
    found = find_lr(job, steps=60)
    assert all(
        torch.equal(a, b) for a, b in [(before["torch"], checkpoint.random_state()["torch"])]
    )
    assert not run_dir.exists() or list(run_dir.iterdir()) == []
    assert 1e-4 < found.suggestion < 0.5
    assert found.points[0].lr == pytest.approx(lr_finder.LOW)
    path = lr_finder.write(found, run_dir)
    assert path == run_dir.parent / "lr-finder.csv"
    assert len(path.read_text().splitlines()) == 1 + len(found.points)
    losses = []
    for name, rate in (("slow", 1e-9), ("found", found.suggestion)):
        folder = run_dir.parents[1] / name / "fold0"
        optimiser = {**slow, "lr": rate}
        train(Job(folder, recipe(optimiser=optimiser, epochs=6), spec, squares, 0, "cpu"))
        losses.append(checkpoint.newest(folder).state["history"][-1]["loss"])
    assert losses[1] < 0.7 * losses[0]


def test_it_stops_where_the_loss_explodes(squares, spec, recipe, run_dir):
    sgd = {"target": "sgd", "lr": 1.0, "weight_decay": 0.0, "encoder_lr": 1.0, "kwargs": {}}
    wild = recipe(optimiser=sgd, clip=0.0, loss={"target": "bce", "kwargs": {"positive": 1e6}})
    found = find_lr(Job(run_dir, wild, spec, squares, 0, "cpu"), steps=100)
    assert len(found.points) < 100
    assert all(math.isfinite(point.loss) for point in found.points)


def test_the_line_is_as_wide_as_asked():
    points = tuple(smooth(np.geomspace(1e-6, 1, 100), curve(1e-3, 1e-1)))
    line = lr_finder.sparkline(points, 40)
    assert len(line) == 40
    assert line[0] == "▇" or line[0] == "█"
    assert "▁" in line

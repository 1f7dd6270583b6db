"""What a training will take, said before: from earlier runs, or from a few steps tried out."""

from __future__ import annotations

import json
import signal
from dataclasses import replace

import pytest
import torch

from kagflow.learn import checkpoint, tryout
from kagflow.learn.begin import standing
from kagflow.learn.forecast import Stock, forecast, wall
from kagflow.learn.job import Job
from kagflow.learn.prepare import machine_name
from kagflow.learn.speed import Speed, earlier_speed
from kagflow.learn.train import train
from kagflow.learn.tryout import try_out

CPU = torch.device("cpu")
HERE = machine_name(CPU)
SPEED = Speed(
    "made up", image=2.0, glance=10.0, predict=3.0, decode=0.5, memory=7, checkpoint=100,
    weights=30, oof=5.0, changes={},
)  # fmt: skip


@pytest.fixture
def job(squares, spec, recipe, run_dir):
    def make(name: str = "tiny", fold=0, **changes) -> Job:
        folder = run_dir.parents[1] / name / (f"fold{fold}" if fold != "full" else fold)
        return Job(folder, recipe(**changes), spec, squares, fold, "cpu")

    return make


@pytest.fixture
def stock(squares, spec):
    return Stock.read(squares, spec)


def of(job, stock, speed=SPEED):
    return forecast(job, stock, lambda _: speed)


def test_steps_times_and_files_add_up(job, stock):
    """12 of 24 images train, in batches of 4: three an epoch; 12 are held out."""
    found = of(job(epochs=5), stock)
    assert (found.standing, found.step, found.steps) == ("begins", 0, 15)
    assert found.train == 60 * 2.0 + 5 * 10.0
    assert (found.predict, found.decode) == (12 * 3.0, 24 * 0.5)
    assert found.seconds == found.train + found.predict
    assert found.disk == 2 * 100 + 30 + 12 * 5
    windows = of(job(epochs=2, batch=2, accumulate=4, average=3), stock)
    assert (windows.steps, windows.train) == (4, 24 * 2.0 + 2 * 10.0)
    assert windows.disk == 200 + 30 * (1 + 5) + 60
    everything = of(job(fold="full", epochs=1), stock)
    assert (everything.steps, everything.predict, everything.disk) == (6, 0.0, 230)
    smaller = replace(SPEED, changes={"batch": 1, "accumulate": 4})
    assert of(job(epochs=5), stock, smaller).steps == 15
    assert of(job(epochs=5), stock, smaller).changes == {"batch": 1, "accumulate": 4}


def test_what_is_not_known_is_named(job, stock):
    unknown = replace(SPEED, decode=None, predict=None)
    found = of(job(), stock, unknown)
    assert found.unknown == ("time of decoding", "time of predicting", "decoded bytes")
    assert found.seconds is None
    nothing = forecast(job(), None, lambda _: pytest.fail("nothing to measure on"))
    assert nothing.seconds is None
    assert nothing.unknown == ("steps", "time", "memory", "disk")


def test_decoded_images_and_masks_take_their_pixels(stock, squares, spec):
    assert stock.decoded((10, 20)) == (24 + len(stock.labels)) * 200
    (squares / "index.csv").write_text(
        "image_id,height,width,phash\n" + "".join(f"{n:03}.png,64,64,00\n" for n in range(24))
    )
    assert Stock.read(squares, spec).decoded(None) == (24 + len(stock.labels)) * 64 * 64


def test_a_run_that_is_done_stopped_or_another_is_told_apart(stop_at, job, stock):
    with pytest.raises(KeyboardInterrupt):
        train(job(), stop_at(4, signal.SIGTERM))
    goes_on = of(job(), stock)
    assert (goes_on.standing, goes_on.step, goes_on.steps) == ("goes on", 4, 9)
    assert goes_on.train == pytest.approx(of(job("new"), stock).train * 5 / 9)
    assert goes_on.decode == 0
    other = of(job(epochs=9), stock)
    assert (other.standing, other.seconds) == ("refused", 0)
    assert "recipe.epochs: 3 there, 9 now" in other.why
    assert of(replace(job(epochs=9), force=True), stock).standing == "goes on"
    train(job())
    assert of(job(), stock).standing == "finished"
    assert of(replace(job(epochs=9), force=True), stock).standing == "refused"


def test_looking_changes_nothing(job):
    train(job(epochs=1))
    before = {path: path.read_bytes() for path in job().run_dir.rglob("*") if path.is_file()}
    assert standing(job(epochs=1)).finished
    assert standing(job(epochs=2)).refused
    assert {
        path: path.read_bytes() for path in job().run_dir.rglob("*") if path.is_file()
    } == before


def test_an_earlier_run_of_the_recipe_here_says_how_long(job, stock):
    first = job("tiny", epochs=2)
    train(first)
    run = json.loads((first.run_dir / "run.json").read_text())
    runs, again = first.run_dir.parents[1], job("again", fold=1, epochs=4, seed=3)
    speed = earlier_speed(runs, again.recipe, on=HERE, processes=1)
    assert speed is not None
    assert speed.source == "tiny fold0, finished"
    found = of(again, stock, speed)
    assert found.train == pytest.approx(2 * (run["seconds"] + run["time"]["glance"]))
    assert found.predict == pytest.approx(12 * run["seconds_per_image"])
    (checkpoint_file,) = first.run_dir.glob("ckpt-*.pt")
    rest = [*first.run_dir.glob("oof/*"), first.run_dir / "best.safetensors"]
    files = [checkpoint_file, checkpoint_file, *rest]
    assert found.disk == pytest.approx(sum(path.stat().st_size for path in files), abs=1)
    assert found.memory == run["memory"] > 50_000_000
    for other in ({"batch": 3}, {"crop": [32, 32]}, {"workers": 2}, {"ema": 0.0}):
        assert earlier_speed(runs, again.recipe | other, on=HERE, processes=1) is None
    assert earlier_speed(runs, again.recipe, on="another", processes=1) is None
    assert earlier_speed(runs, again.recipe, on=HERE, processes=2) is None


def test_a_recipe_is_tried_out_and_nothing_stays(job, squares, monkeypatch):
    monkeypatch.setattr(tryout, "SECONDS", 0.05)
    before = checkpoint.random_state()["torch"]
    asked = job(sampler={"target": "balanced", "kwargs": {}}, weights="imagenet")
    speed = try_out(asked, CPU)
    assert torch.equal(before, checkpoint.random_state()["torch"])
    assert not asked.run_dir.exists()
    assert not (squares.parents[1] / ".kagflow").exists()
    assert speed.source.startswith("measured now, ")
    assert speed.source.endswith("steps of 4 images")
    assert min(speed.image, speed.glance, speed.predict, speed.decode, speed.oof) > 0
    assert speed.checkpoint > speed.weights > 1000
    assert try_out(job(fold="full"), CPU).predict is None


def test_a_slow_recipe_is_measured_on_less_and_scaled(job, monkeypatch):
    monkeypatch.setattr(tryout, "SLOW", 0.0)
    speed = try_out(job(batch=8), CPU)
    assert speed.source == "measured now, 1 steps of 2 images, scaled to 8"


def test_the_memory_of_a_scaled_step_is_that_of_the_whole_one(job, monkeypatch):
    """Counted on two images of four and scaled, and counted on all four."""
    monkeypatch.setattr(tryout, "SECONDS", 0.0)
    big = job(crop=[512, 512])
    whole = try_out(big, CPU, base=1000).memory
    monkeypatch.setattr(tryout, "SLOW", 0.0)
    scaled = try_out(big, CPU, base=1000).memory
    assert whole > 50_000_000
    assert scaled == pytest.approx(whole, rel=0.1)
    assert try_out(big, CPU).memory > scaled + 100_000_000


def test_devices_share_the_jobs():
    assert wall([3.0, 2.0, 2.0], 1) == 7.0
    assert wall([3.0, 2.0, 2.0], 2) == 4.0
    assert wall([], 2) == 0.0

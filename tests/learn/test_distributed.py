"""Two processes under torchrun train what one would: same weights, same files, same stops."""

from __future__ import annotations

import json
import os
import signal
import sys
import time

import pytest
from safetensors.torch import load_file

from kagflow import process
from kagflow.errors import RefusedError
from kagflow.learn import checkpoint, child, relay
from kagflow.learn.job import Job
from kagflow.learn.oof import OofReader
from kagflow.learn.train import train

# Losses that look at the whole batch, batches of five and windows of two: the shares are uneven,
# and the mean of their losses is not the loss of all.
WHOLE = {
    "batch": 5, "accumulate": 2, "epochs": 3, "samples": 30, "crop": [48, 48],
    "loss": {"target": "bce_dice", "kwargs": {}},
    "sampler": {"target": "balanced", "kwargs": {}},
    "model": {"target": "tiny_models:Unbiased", "kwargs": {}},
}  # fmt: skip


@pytest.fixture
def job(squares, spec, recipe, run_dir):
    def make(name: str, processes: int, **changes) -> Job:
        folder = run_dir.parents[1] / name / "fold0"
        whole = recipe(**WHOLE | changes)
        return Job(folder, whole, spec, squares, 0, "cpu", processes=processes)

    return make


@pytest.fixture
def begin(tmp_path):
    """Return what starts a job under torchrun, and what then reads its news."""
    started = []

    def make(job: Job):
        news = tmp_path / f"news-{len(started)}.jsonl"
        told = tmp_path / f"job-{len(started)}.json"
        child.write(told, job, news=news)
        words = ["--standalone", "--nproc-per-node", str(job.processes), "-m", child.__name__]
        argv = [sys.executable, "-m", "torch.distributed.run", *words, str(told)]
        log = (tmp_path / "log").open("ab")
        started.append(process.spawn(argv, stdout=log, stderr=log, env=os.environ))
        return started[-1], relay.Follower(news)

    yield make
    for one in started:
        if one.poll() is None:
            one.kill()


def wait(started, follower, until=None):
    """Return the news up to the first that `until` likes, or to the end of the processes."""
    seen, running = [], True
    while running:
        running = started.poll() is None
        for news in follower.news():
            seen.append(news)
            if until is not None and until(news):
                return seen
        time.sleep(0.02)
    return seen


def result(seen):
    found = [news.get("result") or news for news in seen if news["what"] in ("result", "error")]
    assert len(found) == 1, found
    return found[0]


def weights(job):
    return load_file(job.run_dir / "best.safetensors")


def furthest(one, two):
    assert one.keys() == two.keys()
    return max(float((one[key].double() - two[key].double()).abs().max()) for key in one)


def test_two_processes_are_one(job, begin):
    alone, shared = job("alone", 1), job("shared", 2)
    train(alone)
    seen = wait(*begin(shared))
    assert result(seen)["finished"]
    one, two = weights(alone), weights(shared)
    assert {name for name in one if "running" in name}
    assert furthest(one, two) < 1e-5
    ours, theirs = (checkpoint.newest(each.run_dir).state for each in (alone, shared))
    assert furthest(ours["model"], theirs["model"]) < 1e-5
    assert ours["step"] == theirs["step"] == 9
    lines = [
        [json.loads(line) for line in (each.run_dir / "metrics.jsonl").read_text().splitlines()]
        for each in (alone, shared)
    ]
    for our, their in zip(*lines, strict=True):
        assert our["loss"] == pytest.approx(their["loss"], abs=1e-5)
    # Each held-out image is predicted once, though two processes trained.
    with OofReader(shared.run_dir / "oof") as store:
        assert sorted(store.image_ids) == [f"{n:03}.png" for n in range(0, 24, 2)]
    assert len({news["id"] for news in seen if news["what"] == "process"}) == 2


@pytest.mark.slow
def test_a_signal_to_one_stops_all_at_one_step_and_the_rerun_goes_on(job, begin):
    """Dropout is on: what each process draws depends on (seed, step, process) alone."""
    model = {"target": "tiny_models:Unbiased", "kwargs": {"dropout": 0.1}}
    changes = {"model": model, "epochs": 40, "samples": 30, "batch": 3, "accumulate": 1}
    whole, stopped = job("whole", 2, **changes), job("stopped", 2, **changes)
    started, follower = begin(stopped)
    seen = wait(started, follower, lambda news: news["what"] == "show" and news["whole"])
    second = [news["id"] for news in seen if news["what"] == "process"][1]
    os.kill(second, signal.SIGTERM)
    seen = wait(started, follower)
    assert [news["what"] for news in seen if news["what"] in ("interrupted", "error")] == [
        "interrupted", "interrupted",
    ]  # fmt: skip
    at = checkpoint.newest(stopped.run_dir).step
    assert 10 <= at < 400
    assert not (stopped.run_dir / "run.json").exists()
    with pytest.raises(RefusedError, match="processes: 2 there, 1 now"):
        train(job("stopped", 1, **changes))
    both = [begin(each) for each in (whole, stopped)]
    ended = [result(wait(*each)) for each in both]
    assert [one["resumed"] for one in ended] == [None, at]
    assert furthest(weights(whole), weights(stopped)) < 1e-6


@pytest.mark.slow
def test_an_error_in_any_process_is_told_first(job, begin):
    """The second process fails; what the first one then says is only what followed from it."""
    model = {"target": "tiny_models:OneFails", "kwargs": {}}
    started, follower = begin(job("failing", 2, model=model))
    errors = [news for news in wait(started, follower) if news["what"] == "error"]
    assert errors[0]["error"] == "ZeroDivisionError: the second alone"
    assert "tiny_models.py" in errors[0]["trace"]
    assert started.returncode != 0


@pytest.mark.slow
def test_a_batch_smaller_than_the_processes_is_refused(job, begin):
    errors = [news for news in wait(*begin(job("small", 2, batch=1))) if news["what"] == "error"]
    assert "batches of 1 can't be shared by 2 processes" in errors[0]["error"]
    assert errors[0]["code"] == 2


def test_a_training_whose_parent_is_gone_stops(job, tmp_path):
    path = tmp_path / "news.jsonl"
    told = relay.Relay(path, parent=os.getpid())
    heard = []
    before = signal.signal(signal.SIGTERM, lambda *_: heard.append(1))
    try:
        told.advance()
        assert not heard
        gone = process.spawn([sys.executable, "-c", ""])
        gone.wait()
        relay.Relay(path, parent=gone.pid).advance()
        assert heard
    finally:
        signal.signal(signal.SIGTERM, before)


def test_news_come_whole_and_in_order(tmp_path):
    path = tmp_path / "news.jsonl"
    told, follower = relay.Relay(path, parent=os.getpid()), relay.Follower(path)
    assert list(follower.news()) == []
    told.start("epoch 1/2", 3, "steps")
    told.show({"loss": 1.0})
    told.advance()
    told.advance()
    told.finish()
    told({"epoch": 0})
    with path.open("a") as file:
        file.write('{"what": "no')
    news = list(follower.news())
    whats = [one["what"] for one in news]
    assert whats[0] == "start"
    assert whats[-2:] == ["finish", "epoch"]
    assert sum(one["n"] for one in news if one["what"] == "advance") == 2
    assert {"what": "show", "figures": {"loss": 1.0}, "whole": False} in news
    with path.open("a") as file:
        file.write('te", "text": "t"}\n')
    assert [one["text"] for one in follower.news()] == ["t"]

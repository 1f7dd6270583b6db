"""Batches come in order, are read ahead, and are the same whoever reads them."""

from __future__ import annotations

import multiprocessing
import os
import signal
import time

import numpy as np
import pytest
import torch

from kagflow.infer.image import Grey
from kagflow.learn import feed as feed_module
from kagflow.learn.cache import Cache
from kagflow.learn.dataset import Samples, Steps
from kagflow.learn.feed import Feed, worker_count
from kagflow.learn.sampler import Draw

CPU = torch.device("cpu")


class Counted(Samples):
    """Samples whose every batch counts, whichever process makes it, and says which one did."""

    def __init__(self, *given) -> None:
        super().__init__(*given)
        self.made = multiprocessing.get_context("fork").Value("i", 0)

    def batch(self, draws):
        with self.made.get_lock():
            self.made.value += 1
        return super().batch(draws) | {"process": torch.tensor(os.getpid())}


@pytest.fixture
def data():
    from kagflow.learn import augment

    images = np.arange(8, dtype=np.uint8).repeat(16)
    rows = np.array([[4, 4, 16 * n, 0, 0, 4, 4] for n in range(8)], np.int64)
    cache = Cache(tuple(f"{n}.png" for n in range(8)), 2, rows, images, np.zeros(1, np.uint8))
    steps = Steps(None, augment.none(), Grey(mean=0, std=1 / 255), masks=True)
    return Counted(cache, np.arange(8), np.zeros((8, 2), bool), steps)


def batches(*rows):
    return [[Draw(row, 0, centred=False), Draw(row, 1, centred=False)] for row in rows]


def seen(feed, data, size=1):
    return [
        [int(data.finish(batch)["image"].mean().round()) for batch in window.batches]
        for window in feed.windows(size)
    ]


@pytest.mark.parametrize("workers", [0, 2])
def test_batches_come_in_order_in_windows_and_epoch_after_epoch(data, workers):
    feed = Feed(data, workers=workers, device=CPU)
    feed.begin(batches(3, 1, 4, 1, 5))
    assert seen(feed, data, 2) == [[3, 1], [4, 1], [5]]
    feed.begin(batches(2, 6))
    assert seen(feed, data) == [[2], [6]]


def test_what_is_left_of_an_epoch_is_dropped(data):
    feed = Feed(data, workers=2, device=CPU)
    feed.begin(batches(*range(8)))
    next(feed.windows(1))
    feed.begin(batches(7, 0))
    assert seen(feed, data) == [[7], [0]]


def test_workers_read_ahead_before_anybody_asks_and_stay(data):
    feed = Feed(data, workers=2, device=CPU)
    processes = set()
    for epoch in range(1, 3):
        feed.begin(batches(*range(8)))
        # Two a worker are made while the caller does something else.
        wait_until(lambda epoch=epoch: data.made.value >= 8 * (epoch - 1) + 4)
        processes |= {int(b["process"]) for w in feed.windows(1) for b in w.batches}
    assert len(processes) == 2
    assert os.getpid() not in processes


def test_a_signal_to_the_whole_group_does_not_end_workers(data):
    feed = Feed(data, workers=1, device=CPU)
    feed.begin(batches(*range(8)))
    windows = feed.windows(1)
    worker = int(next(windows).batches[0]["process"])
    os.kill(worker, signal.SIGTERM)
    os.kill(worker, signal.SIGINT)
    rest = [int(window.batches[0]["process"]) for window in windows]
    assert rest == [worker] * 7


def test_a_gpu_is_fed_by_processes_and_a_cpu_by_itself(monkeypatch):
    gpu = torch.device("cuda")
    assert worker_count(CPU) == 0
    for cores, gpus, wanted in ((1, 1, 1), (2, 1, 2), (4, 2, 2), (64, 1, 4), (2, 8, 1)):
        monkeypatch.setattr(feed_module.os, "sched_getaffinity", lambda _, n=cores: set(range(n)))
        monkeypatch.setattr(torch.cuda, "device_count", lambda n=gpus: n)
        assert worker_count(gpu) == wanted


def wait_until(true) -> None:
    deadline = time.monotonic() + 60
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.002)

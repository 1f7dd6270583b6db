"""Batches for one epoch after another, from workers that stay."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch.utils.data import DataLoader, Dataset

from kagflow.learn.dataset import Sample, Samples
from kagflow.learn.sampler import Draw


@dataclass(frozen=True)
class Window:
    """The batches of one optimiser step, what was drawn for them, and the seconds waited."""

    drawn: list[list[Draw]]
    batches: list[Sample]
    waited: float


class _Batches(Dataset[Sample]):
    """Make a whole batch at a time, so that it may be bytes."""

    def __init__(self, data: Samples) -> None:
        self._data = data

    def __getitem__(self, draws: list[Draw]) -> Sample:
        return self._data.batch(draws)


class Feed:
    """Load what `begin` is given; with workers they read ahead from that moment on."""

    def __init__(self, data: Samples, *, workers: int | None, device: torch.device) -> None:
        workers = worker_count(device) if workers is None else workers
        self._order: list[list[Draw]] = []
        # A generator of its own: the loader would draw its seed from the global one, and a resumed
        # epoch would leave the sequence.
        self._loader: DataLoader[Sample] = DataLoader(
            _Batches(data),
            batch_size=None,
            # torch wants numbers as indices; any list will do.
            sampler=cast(Any, self._order),
            num_workers=workers,
            persistent_workers=workers > 0,
            pin_memory=device.type == "cuda",
            generator=torch.Generator(),
        )
        self._source: Iterator[Sample] = iter(())

    def begin(self, batches: list[list[Draw]]) -> None:
        """Go on to these batches, dropping what is left of those before."""
        self._order[:] = batches
        with _signals_held():
            self._source = iter(self._loader)

    def windows(self, size: int) -> Iterator[Window]:
        """Yield `size` batches at a time, fewer at the end."""
        order = list(self._order)
        for at in range(0, len(order), size):
            drawn, start = order[at : at + size], time.monotonic()
            batches = [next(self._source) for _ in drawn]
            yield Window(drawn, batches, time.monotonic() - start)


def worker_count(device: torch.device) -> int:
    """Return how many processes keep a device fed, at most four; none where it is the CPU itself.

    A process makes several hundred augmented crops a second, and GPUs share the cores.
    """
    if device.type != "cuda":
        return 0
    return max(1, min(4, len(os.sched_getaffinity(0)) // max(1, torch.cuda.device_count())))


@contextmanager
def _signals_held() -> Iterator[None]:
    """Start workers with SIGTERM and SIGINT blocked for good.

    A signal to the whole process group would end them, and the state could be saved but the epoch
    not go on to the next step's end. They leave when this process tells them to, or is gone.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGTERM, signal.SIGINT))
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)

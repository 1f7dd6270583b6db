"""Share batches among devices, each with a thread of its own."""

from __future__ import annotations

import queue
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Generic, Self, TypeVar

L = TypeVar("L")
G = TypeVar("G")


class Lanes(Generic[L, G]):
    """Run jobs on whichever lane is free; results come in the order in which jobs were sent."""

    def __init__(self, lanes: Sequence[L]) -> None:
        self._count = len(lanes)
        self._free: queue.SimpleQueue[L] = queue.SimpleQueue()
        for lane in lanes:
            self._free.put(lane)
        self._pending: deque[Future[G]] = deque()
        self._pool = ThreadPoolExecutor(self._count)

    def send(self, job: Callable[[L, G], G], group: G) -> None:
        """Have `job(lane, group)` done."""
        self._pending.append(self._pool.submit(self._run, job, group))

    def done(self, *, wait: bool) -> Iterator[G]:
        """Yield results; without `wait` one job a lane may go on. Raises what a job raised."""
        while len(self._pending) > (0 if wait else self._count):
            yield self._pending.popleft().result()

    def _run(self, job: Callable[[L, G], G], group: G) -> G:
        lane = self._free.get()
        try:
            return job(lane, group)
        finally:
            self._free.put(lane)

    def __enter__(self) -> Self:
        """Work as a context."""
        return self

    def __exit__(self, *_: object) -> None:
        """Drop what has not begun."""
        self._pool.shutdown(cancel_futures=True)

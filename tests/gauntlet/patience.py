"""Waits that take no time, and an end to those that would take too long."""

from __future__ import annotations

import signal
import time
from contextlib import contextmanager


class Hung(BaseException):
    """A wait beyond its limit; nobody on the way takes it for an error of Kaggle's."""


class Clock:
    """Seconds that were slept count as passed; sleeping beyond a limit ends in Hung."""

    def __init__(self):
        self.slept, self.ends = 0.0, float("inf")

    @contextmanager
    def limit(self, seconds):
        before, self.ends = self.ends, min(self.ends, self.slept + seconds)
        try:
            yield
        finally:
            self.ends = before

    def sleep(self, seconds):
        self.slept += seconds
        if self.slept > self.ends:
            raise Hung(f"would have waited {self.slept - self.ends:.0f} s beyond its limit")
        # Who works in the background gets a moment of real time.
        time.sleep(min(seconds, 0.004))

    def monotonic(self):
        return time.monotonic() + self.slept


@contextmanager
def alarmed(seconds):
    """End what waits for an answer that never comes, whatever it waits in."""

    def ring(*_):
        raise Hung(f"no end after {seconds:.0f} s of real time")

    earlier = signal.signal(signal.SIGALRM, ring)
    # pytest-timeout may have set the one timer that a process has.
    left, _ = signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, left)
        signal.signal(signal.SIGALRM, earlier)

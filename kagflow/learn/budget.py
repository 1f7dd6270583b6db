"""Stop in time: a budget ends with everything saved, not with the machine switched off."""

from __future__ import annotations

import math
import time

from kagflow.learn.loop import Plan
from kagflow.learn.outcome import Remaining
from kagflow.learn.state import State

# A hosted machine's disk at its slowest, with the flush that a checkpoint waits for.
_BYTES_A_SECOND = 30e6
_LEAST_SECONDS = 1.0


class Budget:
    """Know when `until` (of time.monotonic(), None for never) is too near for another step."""

    def __init__(self, until: float | None) -> None:
        self._until = math.inf if until is None else until
        self._last: float | None = None
        self._longest = 0.0
        self._save = _LEAST_SECONDS

    def watch(self, state: State) -> None:
        """Leave room for a checkpoint of this state."""
        # Model, average and what the optimiser keeps of each weight: four floats as a rule.
        weights = sum(one.numel() for one in state.model.parameters())
        self._save = _LEAST_SECONDS + 16 * weights / _BYTES_A_SECOND

    def spent(self) -> bool:
        """Tell whether the next step and a checkpoint may not fit; is asked after each step.

        The longest time between two questions counts, so that a step which also saved, or looked
        at images, is what the next one is taken for.
        """
        now = time.monotonic()
        if self._last is not None:
            self._longest = max(self._longest, now - self._last)
        self._last = now
        return now + 1.5 * self._longest + self._save > self._until

    def lacks(self, seconds: float) -> bool:
        """Tell whether that much time is not left."""
        return time.monotonic() + seconds > self._until


def remaining(state: State, plan: Plan, *, predict: float) -> Remaining:
    """Estimate what is left to do from the speed so far, and `predict` seconds at the end."""
    steps = max(plan.steps - state.step, 0)
    done = max(state.step, 1)
    each = (sum(state.time.values()) - state.time["predict"]) / done
    per_epoch = plan.steps / plan.epochs
    return Remaining(state.step, plan.steps, steps / per_epoch, steps * each + predict)

"""Train on Kaggle's GPUs."""

from __future__ import annotations

from kagflow.cli.executors import Order
from kagflow.cli.sweep import Outcome
from kagflow.errors import UsageError


class OnKaggle:
    """Train in kernels that go on from each other."""

    def run(self, order: Order, *, attach: bool) -> Outcome:
        """Hand over, follow, bring back."""
        del order, attach
        raise UsageError("--on kaggle is not there yet", hint="leave it out: train here")

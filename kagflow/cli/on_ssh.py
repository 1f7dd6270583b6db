"""Train on a host that ssh reaches."""

from __future__ import annotations

from kagflow.cli.executors import Order
from kagflow.cli.sweep import Outcome
from kagflow.errors import UsageError


class OnSsh:
    """Train on a host in a run that survives the connection."""

    def __init__(self, host: str) -> None:
        self.host = host

    def run(self, order: Order, *, attach: bool) -> Outcome:
        """Hand over, follow, bring back."""
        del order, attach
        raise UsageError("--on ssh:HOST is not there yet", hint="leave it out: train here")

"""Where a training runs: here, on Kaggle's GPUs, on a host that ssh reaches. One call each.

What a place is given and what it gives back are values; how work gets there, and how a lost
connection or a killed process finds it again, is each place's own affair.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from kagflow.cli.competitions import Known
from kagflow.cli.jobs import Job
from kagflow.cli.session import Session
from kagflow.cli.sweep import Outcome
from kagflow.cli.training import How, train_all
from kagflow.errors import UsageError

LOCAL, KAGGLE, SSH = "local", "kaggle", "ssh:"


@dataclass(frozen=True)
class Order:
    """Ask for jobs to be trained; `typed` is the command as it was typed.

    `hours` is the most that may be spent there, None for what the place itself allows. Nothing is
    `planned` where a person attaches without naming what: the newest that was handed over is meant.
    `yes` asks nobody.
    """

    session: Session
    known: Known
    planned: tuple[Job, ...]
    how: How
    hours: float | None
    over_quota: bool
    typed: str
    yes: bool = False


class Executor(Protocol):
    """Train what is ordered, wherever that is."""

    def run(self, order: Order, *, attach: bool) -> Outcome:
        """Hand over unless handed over before, follow, bring back verified.

        An interrupt loses nothing, and the same call goes on. `attach` starts nothing new. Raises
        UsageError for what the place cannot do, RemoteError or NetworkError for what fails there.
        """
        ...


class Local:
    """Train in this process, or in children of it."""

    def run(self, order: Order, *, attach: bool) -> Outcome:
        """Train the jobs here."""
        if attach or order.hours is not None:
            raise UsageError(
                "--attach and --hours are for a training that runs elsewhere",
                hint="--on kaggle or --on ssh:HOST; here the same command goes on, and budget=8h "
                "stops in time",
            )
        return train_all(order.session, order.known, order.planned, order.how)


def executor(word: str) -> Executor:
    """Return what trains at a place: local, kaggle or ssh:HOST.

    Raises UsageError for any other word.
    """
    if word == LOCAL:
        return Local()
    if word == KAGGLE:
        from kagflow.cli.on_kaggle import OnKaggle

        return OnKaggle()
    if word.startswith(SSH) and word != SSH:
        from kagflow.cli.on_ssh import OnSsh

        return OnSsh(word.removeprefix(SSH))
    raise UsageError(f"--on {word}", hint="--on local, kaggle or ssh:HOST (user@host, an alias)")

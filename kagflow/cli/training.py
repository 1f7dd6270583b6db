"""Train the jobs that a command line asks for: on which devices, until when, who watches."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

from kagflow.cli import devices, sweep, words
from kagflow.cli.board import Board
from kagflow.cli.competitions import Known
from kagflow.cli.crew import Crew
from kagflow.cli.devices import Slot
from kagflow.cli.jobs import Job
from kagflow.cli.rows import Rows
from kagflow.cli.session import Session
from kagflow.cli.sweep import Outcome
from kagflow.cli.told import told
from kagflow.errors import UsageError
from kagflow.workspace import user_state

if TYPE_CHECKING:
    from kagflow.learn.events import Events
    from kagflow.learn.job import Job as Wanted
    from kagflow.progress import Progress

# What a budget must leave for a training to begin: to read its data and take a step.
LEAST_SECONDS = 10.0


@dataclass(frozen=True)
class How:
    """How to train whatever is asked for; no part of a run's name.

    `until` is of time.monotonic(), `memory` in bytes; `gpus` processes share a training.
    """

    device: str = "auto"
    force: bool = False
    until: float | None = None
    tensorboard: bool = False
    memory: int | None = None
    gpus: int = 1

    @classmethod
    def take(cls, given: dict[str, str], *, device: str, force: bool, began: float) -> Self:
        """Take the words that are not the recipe's out of `given`.

        Raises UsageError for a value that is none.
        """
        budget, memory = given.pop("budget", None), given.pop("memory", None)
        return cls(
            device,
            force,
            None if budget is None else began + words.seconds(budget),
            _tensorboard(given.pop("tensorboard", "false")),
            None if memory is None else words.size(memory),
            _count(given.pop("gpus", "1")),
        )

    def spent(self) -> bool:
        """Tell whether a budget leaves no time to begin anything."""
        return self.until is not None and time.monotonic() + LEAST_SECONDS > self.until


def train_all(session: Session, known: Known, planned: Sequence[Job], how: How) -> Outcome:
    """Train the jobs: one after another on a lone device, else one on each at a time."""
    slots = devices.slots(how.device, gpus=how.gpus, jobs=len(planned))
    if len(slots) == 1 and how.gpus == 1:
        (device,) = slots[0].devices
        return sweep.run(
            planned, lambda job: train(session, known, job, how, device), spent=how.spent
        )
    crew = Crew(slots)
    with crew.signalled():
        if len(slots) == 1:
            return sweep.run(
                planned,
                lambda job: _train_in_child(session, known, job, how, crew, slots[0]),
                spent=how.spent,
            )
        session.out.say(f"{len(slots)} at a time, on {', '.join(slot.name for slot in slots)}")
        with Rows(session.out, known.config.classes) as rows:
            return sweep.run_beside(
                planned,
                lambda job, slot: _train_in_child(session, known, job, how, crew, slot, rows),
                slots,
                spent=how.spent,
            )


def train(
    session: Session,
    known: Known,
    job: Job,
    how: How | None = None,
    device: str | None = None,
) -> dict[str, Any]:
    """Train one job in this process, or say that it is already finished; return its run.json."""
    from kagflow.learn.train import train as train_one

    how = how or How()
    device = device or how.device
    session.out.say(f"train {job.label}")
    with (
        _ledger(session, known, job, device),
        _watched(session, known, job) as progress,
        _tensorboards(job, known, how) as events,
    ):
        result = train_one(wanted(session, known, job, how, device), progress, events)
    return _summary(session, job, result.summary())


def wanted(session: Session, known: Known, job: Job, how: How, device: str) -> Wanted:
    """Return what the training room is to train."""
    from kagflow.learn import job as learn_job

    return learn_job.Job(
        job.folder,
        job.recipe.model_dump(mode="json"),
        known.config.task(),
        session.workspace.data(known.name),
        job.fold,
        device,
        force=how.force,
        until=how.until,
        memory=how.memory,
        processes=how.gpus,
    )


def _train_in_child(
    session: Session,
    known: Known,
    job: Job,
    how: How,
    crew: Crew,
    slot: Slot,
    rows: Rows | None = None,
) -> dict[str, Any]:
    (rows or session.out).say(f"train {job.label} on {slot.name}")
    with (
        _ledger(session, known, job, slot.name),
        _watched(session, known, job, rows) as progress,
        _tensorboards(job, known, how) as events,
    ):
        asked = wanted(session, known, job, how, slot.inside)
        result = crew.train(asked, slot, progress, events)
    return _summary(session, job, result, rows)


@contextmanager
def _watched(
    session: Session, known: Known, job: Job, rows: Rows | None = None
) -> Iterator[Progress]:
    if rows is None:
        with (
            Board(session.out, job.label, known.config.classes) as board,
            told(job.label, board) as progress,
        ):
            yield progress
        return
    row = rows.open(job.label)
    try:
        with told(job.label, row) as progress:
            yield progress
    finally:
        rows.close(row)


@contextmanager
def _tensorboards(job: Job, known: Known, how: How) -> Iterator[Events | None]:
    if not how.tensorboard:
        yield None
        return
    from kagflow.learn.events import Events

    with ExitStack() as stack:
        events = Events(job.folder, known.config.classes)
        stack.callback(events.close)
        yield events


def _summary(
    session: Session, job: Job, result: dict[str, Any], rows: Rows | None = None
) -> dict[str, Any]:
    from kagflow.learn.outcome import oof_line

    if result["fresh"] and result["score"] is not None:
        line = oof_line(job.folder)
        (rows or session.out).say(line if rows is None else f"{job.label}: {line}")
    return {"run": job.run, "fold": job.fold, **result}


def _tensorboard(text: str) -> bool:
    from kagflow.yaml_file import parse_value

    asked = parse_value(text)
    if not isinstance(asked, bool):
        raise UsageError(f"tensorboard={text}", hint="tensorboard=true or tensorboard=false")
    if asked:
        from kagflow.learn.events import find_writer

        # Before anything begins: a sweep would note it once for every run.
        find_writer()
    return asked


def _count(text: str) -> int:
    if not (text.isascii() and text.isdigit()) or not int(text):
        raise UsageError(f"gpus={text}", hint="gpus=2 trains one model on two GPUs")
    return int(text)


@contextmanager
def _ledger(session: Session, known: Known, job: Job, device: str) -> Iterator[None]:
    """Note in the ledger how long a training took, also one that was stopped."""
    from kagflow.ship import hours
    from kagflow.ship.records import HoursRow, Records, now

    if (job.folder / "run.json").is_file():
        yield
        return
    records = Records(user_state())
    row = hours.begin(
        records,
        HoursRow(
            profile=session.workspace.profile,
            account="",
            kind="train",
            competition=known.name,
            subject=f"{job.run}/{job.folder.name}",
            place="local",
            accelerator=device,
            started=now(),
        ),
    )
    try:
        yield
    finally:
        hours.end(records, row)

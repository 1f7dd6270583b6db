"""kagflow train: train folds of recipes, one run folder each."""

from __future__ import annotations

import contextlib
import shlex
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Annotated, Any

import typer

from kagflow.cli import competitions, find_lr, jobs, notify, sweep, words
from kagflow.cli.board import Board
from kagflow.cli.competitions import Known
from kagflow.cli.jobs import Job
from kagflow.cli.session import INTERRUPTED, Session, guarded, open_session
from kagflow.cli.sweep import Outcome
from kagflow.errors import UsageError
from kagflow.workspace import user_state

# What a budget must leave for a training to begin: to read its data and take a step.
LEAST_SECONDS = 10.0


@dataclass(frozen=True)
class How:
    """How to train whatever is asked for; no part of a run's name."""

    device: str = "auto"
    force: bool = False
    until: float | None = None
    tensorboard: bool = False

    def spent(self) -> bool:
        """Tell whether a budget leaves no time to begin anything."""
        return self.until is not None and time.monotonic() + LEAST_SECONDS > self.until


@guarded
def command(
    context: typer.Context,
    given: Annotated[
        list[str] | None, typer.Argument(metavar="[COMPETITION] [KEY=VALUE]...")
    ] = None,
    device: Annotated[str, typer.Option(help="auto, cpu or cuda.")] = "auto",
    force_resume: Annotated[
        bool, typer.Option("--force-resume", help="Go on although code, recipe or data changed.")
    ] = False,
    find_rate: Annotated[
        bool, typer.Option("--find-lr", help="Suggest a learning rate, train nothing.")
    ] = False,
) -> None:
    """Train: fold=0 (or 0,1 or all), recipe=NAME, any recipe key; commas sweep.

    Not of the recipe: budget=8h stops in time, on_done="COMMAND" runs a command at the end,
    tensorboard=true writes TensorBoard's files beside metrics.jsonl.
    """
    began = time.monotonic()
    session = open_session(context)
    said = words.split(given or [])
    known = competitions.find(session.workspace, said.competition)
    with notify.on_done(session, known, said.overrides.pop("on_done", None)) as done:
        budget = said.overrides.pop("budget", None)
        until = None if budget is None else began + words.seconds(budget)
        board = _tensorboard(said.overrides.pop("tensorboard", "false"))
        how = How(device=device, force=force_resume, until=until, tensorboard=board)
        planned = jobs.plan(session, known, said.overrides)
        if find_rate:
            done.value = find_lr.find(session, known, planned, device=device)
            return
        outcome = sweep.run(planned, lambda job: train(session, known, job, how), spent=how.spent)
        done.value = report(session, outcome, again=session.command(_typed(given or [], how)))
        done.status = outcome.status
    if outcome.interrupted:
        session.out.warn("interrupted; nothing is lost, the same command continues")
        raise typer.Exit(INTERRUPTED)
    if outcome.failed:
        raise typer.Exit(outcome.failed[0].exit_code)


def train(session: Session, known: Known, job: Job, how: How | None = None) -> dict[str, Any]:
    """Train one job, or say that it is already finished; return its run.json."""
    from kagflow.learn import job as learn_job
    from kagflow.learn.events import Events
    from kagflow.learn.outcome import oof_line
    from kagflow.learn.train import train as train_one

    how = how or How()
    session.out.say(f"train {job.label}")
    wanted = learn_job.Job(
        job.folder,
        job.recipe.model_dump(mode="json"),
        known.config.task(),
        session.workspace.data(known.name),
        job.fold,
        how.device,
        force=how.force,
        until=how.until,
    )
    with (
        _ledger(session, known, job, how.device),
        Board(session.out, job.label, known.config.classes) as board,
        contextlib.ExitStack() as stack,
    ):
        events = Events(job.folder, known.config.classes) if how.tensorboard else None
        if events is not None:
            stack.callback(events.close)
        result = train_one(wanted, board, events)
    if result.fresh and result.score is not None:
        session.out.say(oof_line(job.folder))
    return {"run": job.run, "fold": job.fold, **result.summary()}


def report(session: Session, outcome: Outcome, *, again: str) -> dict[str, Any]:
    """Print what was trained, what failed and what remains; return it as JSON values.

    `again` is the command that goes on with what remains.
    """
    rows = [
        (
            one["run"],
            one["fold"],
            one["images"],
            _score(one["score"]),
            _score(one["floor"]),
            f"{one['seconds']:.0f}",
        )
        for one in outcome.finished
    ]
    columns = ("run", "fold", "images", "score (one fold, untuned)", "all-empty", "seconds")
    if rows:
        session.out.table("trained", columns, rows)
    unfinished = bool(outcome.begun or outcome.left)
    next_command = again if unfinished else session.command("submit --dry-run")
    value = {
        "runs": outcome.finished,
        "failed": [
            {"run": one.job.run, "fold": one.job.fold}
            | {"error": one.error, "hint": one.hint, "trace": one.trace}
            for one in outcome.failed
        ],
        "remaining": outcome.begun
        + [{"run": job.run, "fold": job.fold, "remaining": None} for job in outcome.left],
        "next": next_command,
    }
    for paused in outcome.begun:
        session.out.say(_paused(paused))
    if outcome.left:
        what = "interrupted or not begun" if outcome.interrupted else "not begun"
        session.out.say(f"{what}: " + "; ".join(job.label for job in outcome.left))
    show = outcome.finished or unfinished
    session.out.result(value, f"next: {next_command}" if show else "")
    if outcome.failed:
        total = len(outcome.failed) + len(outcome.finished)
        session.out.warn(f"{len(outcome.failed)} of {total} runs failed:")
        for one in outcome.failed:
            session.out.warn(f"{one.job.label}: {one.error} {one.hint}")
    return value


def _tensorboard(text: str) -> bool:
    from kagflow.yaml_file import parse_value

    wanted = parse_value(text)
    if not isinstance(wanted, bool):
        raise UsageError(f"tensorboard={text}", hint="tensorboard=true or tensorboard=false")
    if wanted:
        from kagflow.learn.events import find_writer

        # Before anything begins: a sweep would note it once for every run.
        find_writer()
    return wanted


def _paused(one: dict[str, Any]) -> str:
    left = one["remaining"]
    return (
        f"{one['run']} fold {one['fold']}: the budget ended at step {left['step']} of "
        f"{left['steps']}, all saved; {left['epochs']:.1f} epochs and the prediction remain, "
        f"about {words.span(left['seconds'])}"
    )


def _typed(given: Sequence[str], how: How) -> str:
    """Return the command as it was typed."""
    device = [] if how.device == "auto" else ["--device", how.device]
    return shlex.join(["train", *given, *device])


def _score(value: float | None) -> str:
    return "-" if value is None else f"{value:.4f}"


@contextlib.contextmanager
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

"""kagflow train: train folds of recipes, one run folder each."""

from __future__ import annotations

import shlex
import time
from collections.abc import Sequence
from typing import Annotated

import typer

from kagflow.cli import (
    competitions,
    executors,
    find_lr,
    handed,
    jobs,
    notify,
    plan,
    pseudo,
    words,
)
from kagflow.cli.competitions import Known
from kagflow.cli.executors import LOCAL, Order
from kagflow.cli.jobs import Job
from kagflow.cli.session import INTERRUPTED, Session, guarded, open_session
from kagflow.cli.sweep import Outcome
from kagflow.cli.trained import report
from kagflow.cli.training import How
from kagflow.errors import UsageError


@guarded
def command(
    context: typer.Context,
    given: Annotated[
        list[str] | None, typer.Argument(metavar="[COMPETITION] [KEY=VALUE]...")
    ] = None,
    device: Annotated[
        str, typer.Option(help="auto, cpu, cuda, cuda:<n>, or several with commas.")
    ] = "auto",
    force_resume: Annotated[
        bool, typer.Option("--force-resume", help="Go on although code, recipe or data changed.")
    ] = False,
    plan_only: Annotated[
        bool, typer.Option("--plan", help="Say what would run, how long and in what memory.")
    ] = False,
    find_rate: Annotated[
        bool, typer.Option("--find-lr", help="Suggest a learning rate, train nothing.")
    ] = False,
    on: Annotated[
        str, typer.Option(metavar="PLACE", help="local, kaggle or ssh:HOST: where it trains.")
    ] = LOCAL,
    hours: Annotated[
        float | None, typer.Option(min=0.0, help="The most hours to spend where it trains.")
    ] = None,
    attach: Annotated[bool, typer.Option("--attach", help="Follow; start nothing new.")] = False,
    over_quota: Annotated[bool, typer.Option("--over-quota", help="Past the hours left.")] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
) -> None:
    """Train: fold=0 (or 0,1 or all), recipe=NAME, any recipe key; commas sweep.

    Not of the recipe: budget=8h stops in time, memory=6GB caps the device's, gpus=2 trains each
    model on two, on_done="COMMAND" runs a command at the end, tensorboard=true writes
    TensorBoard's files beside metrics.jsonl. Several GPUs train several runs at a time. --on kaggle
    and --on ssh:HOST train elsewhere and bring back what came of it.
    """
    began = time.monotonic()
    session = open_session(context)
    said = words.split(given or [])
    known = competitions.find(session.workspace, said.competition)
    _check(on, attach=attach, find_rate=find_rate)
    if plan_only:
        typed = _typed(given, device, on, hours)
        said.overrides.pop("on_done", None)
        how = How.take(said.overrides, device=device, force=force_resume, began=began)
        planned = jobs.plan(session, known, said.overrides, unfetched=True)
        plan.show(session, known, planned, how, again=session.command(typed))
        return
    with notify.on_done(session, known, said.overrides.pop("on_done", None)) as done:
        how = How.take(said.overrides, device=device, force=force_resume, began=began)
        planned = _planned(session, known, said, attach=attach)
        pseudo.check(session, known, planned, how)
        if find_rate:
            done.value = find_lr.find(session, known, planned, how)
            return
        on = handed.last(session, known, planned) if attach and on == LOCAL else on
        typed = _typed(given, device, on, hours)
        order = Order(session, known, tuple(planned), how, hours, over_quota, typed, yes)
        outcome = executors.executor(on).run(order, attach=attach)
        done.value = report(session, outcome, again=session.command(typed))
        done.status = outcome.status
    _exit(session, outcome)


def _check(on: str, *, attach: bool, find_rate: bool) -> None:
    if find_rate and (attach or on != LOCAL):
        raise UsageError("--find-lr tries rates on this machine", hint="leave out --on")


def _planned(session: Session, known: Known, said: words.Words, *, attach: bool) -> list[Job]:
    """Return the jobs that the words name; none where a person attaches to whatever is there."""
    return [] if attach and not said.overrides else jobs.plan(session, known, said.overrides)


def _exit(session: Session, outcome: Outcome) -> None:
    if outcome.interrupted:
        session.out.warn("interrupted; nothing is lost, the same command continues")
        raise typer.Exit(INTERRUPTED)
    if outcome.failed:
        raise typer.Exit(outcome.failed[0].exit_code)


def _typed(given: Sequence[str] | None, device: str, on: str, hours: float | None) -> str:
    """Return the command as it was typed, less what is only for once."""
    options = {"--device": (device, "auto"), "--on": (on, LOCAL)}
    named = [word for name, (value, default) in options.items() if value != default
             for word in (name, value)]  # fmt: skip
    return shlex.join(
        ["train", *(given or ()), *named, *([] if hours is None else ["--hours", f"{hours:g}"])]
    )

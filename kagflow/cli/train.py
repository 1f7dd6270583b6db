"""kagflow train: train folds of recipes, one run folder each."""

from __future__ import annotations

import shlex
import time
from collections.abc import Sequence
from typing import Annotated

import typer

from kagflow.cli import competitions, find_lr, jobs, notify, plan, words
from kagflow.cli.session import INTERRUPTED, guarded, open_session
from kagflow.cli.trained import report
from kagflow.cli.training import How, train_all


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
) -> None:
    """Train: fold=0 (or 0,1 or all), recipe=NAME, any recipe key; commas sweep.

    Not of the recipe: budget=8h stops in time, memory=6GB caps the device's, gpus=2 trains each
    model on two, on_done="COMMAND" runs a command at the end, tensorboard=true writes
    TensorBoard's files beside metrics.jsonl. Several GPUs train several runs at a time.
    """
    began = time.monotonic()
    session = open_session(context)
    said = words.split(given or [])
    known = competitions.find(session.workspace, said.competition)
    if plan_only:
        said.overrides.pop("on_done", None)
        how = How.take(said.overrides, device=device, force=force_resume, began=began)
        planned = jobs.plan(session, known, said.overrides, unfetched=True)
        plan.show(session, known, planned, how, again=session.command(_typed(given or [], device)))
        return
    with notify.on_done(session, known, said.overrides.pop("on_done", None)) as done:
        how = How.take(said.overrides, device=device, force=force_resume, began=began)
        planned = jobs.plan(session, known, said.overrides)
        if find_rate:
            done.value = find_lr.find(session, known, planned, how)
            return
        outcome = train_all(session, known, planned, how)
        done.value = report(session, outcome, again=session.command(_typed(given or [], device)))
        done.status = outcome.status
    if outcome.interrupted:
        session.out.warn("interrupted; nothing is lost, the same command continues")
        raise typer.Exit(INTERRUPTED)
    if outcome.failed:
        raise typer.Exit(outcome.failed[0].exit_code)


def _typed(given: Sequence[str], device: str) -> str:
    """Return the command as it was typed."""
    return shlex.join(["train", *given, *([] if device == "auto" else ["--device", device])])

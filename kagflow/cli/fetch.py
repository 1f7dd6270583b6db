"""kagflow fetch: download a competition, check it and cut the folds."""

from __future__ import annotations

import os
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

from kagflow.cli import competitions, local, remotes
from kagflow.cli.competitions import Known
from kagflow.cli.session import Session, guarded, open_session, sole

if TYPE_CHECKING:
    from pathlib import Path

    from kagflow.ship.fetch import Fetched, Wish
    from kagflow.task.surveyed import Surveyed


@guarded
def command(
    context: typer.Context,
    words: Annotated[list[str] | None, typer.Argument(metavar="[COMPETITION]")] = None,
    only: Annotated[
        str | None,
        typer.Option(metavar="GLOB", help="Fetch only files whose path matches; no folds."),
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Download again.")] = False,
    verify: Annotated[bool, typer.Option("--verify", help="Hash every file again.")] = False,
) -> None:
    """Download a competition's data, check every image and label, and cut the folds."""
    from kagflow.ship.fetch import Wish

    session = open_session(context)
    known = competitions.find(session.workspace, sole(words or [], "competition"))
    fetched = fetch(session, known, Wish(only, force, verify))
    next_command = session.command("fetch" if fetched.only else "train fold=0")
    done = "is already here" if fetched.already else "fetched"
    session.out.result(
        {"competition": known.name, **asdict(fetched), "next": next_command},
        f"{known.name} {done}: {fetched.files} files, {fetched.bytes / 1e6:.1f} MB, in "
        f"{session.workspace.data(known.name)}\nnext: {next_command}",
    )


def fetch(session: Session, known: Known, wish: Wish | None = None) -> Fetched:
    """Bring a competition's data here and index it."""
    from kagflow.ship import fetch as stage
    from kagflow.task.surveyed import Plan

    remote = remotes.open_remote(session)
    # Who runs a server of the protocol elsewhere looks after its competitions.
    if session.local and "KAGFLOW_LOCAL_URL" not in os.environ:
        local.ensure_registered(session, known)
    data = session.workspace.data(known.name)
    wish = wish or stage.Wish()
    progress = session.out.progress()
    fetched = stage.fetch(remote, known.config.task(), data, wish=wish, progress=progress)
    if fetched.only:
        return fetched
    config = known.config
    mini = config.mini if fetched.generated else None
    plan = Plan(mini.folds if mini else config.folds, config.seed, config.dirt)
    surveyed = stage.index_data(data, config.task(), plan, progress=progress)
    _tell_dirt(session, surveyed, data)
    session.workspace.set_active(known.name)
    if mini:
        session.out.say(
            f"this is generated look-alike data; `kagflow train` uses the small recipe "
            f"'{mini.recipe}' on it"
        )
    return fetched


def _tell_dirt(session: Session, surveyed: Surveyed, data: Path) -> None:
    from kagflow.task.surveyed import DIRT, MEANS

    if surveyed.already or not surveyed.dirt:
        return
    cases = "\n".join(f"  {count:6d}  {MEANS[kind]}" for kind, count in surveyed.dirt.items())
    left = f"; {surveyed.skipped} images are in no fold" if surveyed.skipped else ""
    session.out.warn(f"the data is not clean{left}:\n{cases}\nevery case: {data / DIRT}")

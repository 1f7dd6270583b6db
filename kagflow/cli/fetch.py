"""kagflow fetch: download a competition, check it and cut the folds."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

from kagflow.cli import competitions, local, remotes
from kagflow.cli.competitions import Known
from kagflow.cli.session import Session, guarded, open_session, sole

if TYPE_CHECKING:
    from kagflow.ship.fetch import Fetched


@guarded
def command(
    context: typer.Context,
    words: Annotated[list[str] | None, typer.Argument(metavar="[COMPETITION]")] = None,
    force: Annotated[bool, typer.Option("--force", help="Download again.")] = False,
) -> None:
    """Download a competition's data, check every label and cut the folds."""
    session = open_session(context)
    known = competitions.find(session.workspace, sole(words or [], "competition"))
    fetched = fetch(session, known, force=force)
    next_command = session.command("train fold=0")
    done = "is already here" if fetched.already else "fetched"
    session.out.result(
        {"competition": known.name, **asdict(fetched), "next": next_command},
        f"{known.name} {done}: {fetched.files} files, {fetched.bytes / 1e6:.1f} MB, in "
        f"{session.workspace.data(known.name)}\nnext: {next_command}",
    )


def fetch(session: Session, known: Known, *, force: bool = False) -> Fetched:
    """Bring a competition's data here and index it."""
    from kagflow.ship import fetch as stage

    remote = remotes.open_remote(session)
    if session.local:
        local.ensure_registered(session, known)
    data = session.workspace.data(known.name)
    config = known.config
    fetched = stage.fetch(remote, config.task(), data, progress=session.out.progress(), force=force)
    mini = config.mini if fetched.generated else None
    stage.index_data(
        data,
        config.task(),
        folds=mini.folds if mini else config.folds,
        seed=config.seed,
        progress=session.out.progress(),
    )
    session.workspace.set_active(known.name)
    if mini:
        session.out.say(
            f"this is generated look-alike data; `kagflow train` uses the small recipe "
            f"'{mini.recipe}' on it"
        )
    return fetched

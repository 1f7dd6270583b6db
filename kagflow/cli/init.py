"""kagflow init: a new competition's folder from the template."""

from __future__ import annotations

from typing import Annotated

import typer

from kagflow import durable, resources
from kagflow.cli import competitions, scaffold
from kagflow.cli.session import Session, guarded, open_session
from kagflow.errors import RefusedError, UsageError


@guarded
def command(
    context: typer.Context,
    name: Annotated[str, typer.Argument(help="The competition's name here, an identifier.")],
    notebook: Annotated[
        bool, typer.Option("--notebook", help="Write NAME.ipynb, to train NAME on a hosted GPU.")
    ] = False,
    source: Annotated[
        str | None,
        typer.Option("--from", metavar="COMPETITION", help="Take its recipes and its code along."),
    ] = None,
) -> None:
    """Scaffold competitions/NAME: competition.yaml, a recipe and a place for your own code."""
    session = open_session(context)
    if notebook:
        _notebook(session, name)
        return
    if not name.isidentifier():
        raise UsageError(
            f"'{name}' can't be imported", hint="letters, digits and _, e.g. steel_defects"
        )
    folder = session.workspace.root / "competitions" / name
    if folder.exists():
        raise RefusedError(f"{folder} exists", hint="choose another name, or edit what is there")
    known = None if source is None else competitions.find(session.workspace, source)
    files = scaffold.write(folder, name, known)
    session.out.result(
        {"competition": name, "folder": str(folder), "files": files},
        f"made {folder}: {', '.join(files)}\nnext: fill in competition.yaml, then "
        f"kagflow check --competition {name} and kagflow fetch {name}   "
        f"(images of your own: kagflow local add {name} --data DIR)",
    )


def _notebook(session: Session, name: str) -> None:
    """Write the notebook of a competition that is known here; an old one is never overwritten."""
    known = competitions.find(session.workspace, name)
    file = session.workspace.root / f"{known.name}.ipynb"
    if file.exists():
        raise RefusedError(f"{file} exists", hint="rename it, or go on with it")
    text = (resources.templates() / "notebook.ipynb").read_text().replace("NAME", known.name)
    durable.write_text(file, text)
    session.out.result(
        {"competition": known.name, "notebook": str(file)},
        f"made {file}\nnext: open it where the GPU is, and put competitions/{known.name} into the "
        "storage's competitions/ where it holds code of your own",
    )

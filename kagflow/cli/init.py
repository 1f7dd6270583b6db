"""kagflow init: a new competition's folder from the template."""

from __future__ import annotations

import shutil
from typing import Annotated

import typer

from kagflow import resources
from kagflow.cli.session import guarded, open_session
from kagflow.errors import RefusedError, UsageError


@guarded
def command(
    context: typer.Context,
    name: Annotated[str, typer.Argument(help="The competition's name here, an identifier.")],
) -> None:
    """Scaffold competitions/NAME: competition.yaml, a recipe and a place for your own code."""
    session = open_session(context)
    if not name.isidentifier():
        raise UsageError(
            f"'{name}' can't be imported", hint="letters, digits and _, e.g. steel_defects"
        )
    folder = session.workspace.root / "competitions" / name
    if folder.exists():
        raise RefusedError(f"{folder} exists", hint="choose another name, or edit what is there")
    shutil.copytree(
        resources.templates() / "competition", folder, ignore=shutil.ignore_patterns("__pycache__")
    )
    text = (folder / "competition.yaml").read_text().replace("NAME", name)
    (folder / "competition.yaml").write_text(text)
    files = sorted(str(file.relative_to(folder)) for file in folder.rglob("*") if file.is_file())
    session.out.result(
        {"competition": name, "folder": str(folder), "files": files},
        f"made {folder}: {', '.join(files)}\nnext: fill in competition.yaml, then "
        f"kagflow fetch {name}",
    )

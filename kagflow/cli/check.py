"""kagflow check: will a recipe train, will Kaggle accept a submission CSV?"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from kagflow.cli import check_look, check_recipes, competitions, faults, words
from kagflow.cli.session import Session, guarded, open_session
from kagflow.errors import UsageError


@guarded
def command(
    context: typer.Context,
    given: Annotated[
        list[str] | None, typer.Argument(metavar="[RECIPE... | FILE.csv] [KEY=VALUE]...")
    ] = None,
    look: Annotated[
        bool, typer.Option("--look", help="Try a recipe on 16 real images, one step on the CPU.")
    ] = False,
    competition: Annotated[str | None, typer.Option(help="Default: the active one.")] = None,
) -> None:
    """Check recipes, or a submission CSV (ids, order, columns, run lengths).

    Without a word every recipe of the competition and competition.yaml: every name is found, every
    argument bound, all faults are told at once, without data. --look writes a contact sheet too.
    """
    session = open_session(context)
    files = [word for word in given or [] if _is_submission(word)]
    if files and (look or len(given or []) > 1):
        what = f"{files[0]} is a submission, which is checked alone"
        raise UsageError(what, hint=f"kagflow check {files[0]}")
    if files:
        _submission(session, competition, files[0])
        return
    bare = [word for word in given or [] if "=" not in word]
    overrides = words.split([word for word in given or [] if "=" in word]).overrides
    named = [*bare, *words.options(overrides.pop("recipe", ""))]
    names = [name for word in named for name in words.options(word) if name]
    fold = overrides.pop("fold", "0")
    wanted = check_recipes.Wanted(competition, tuple(names), overrides)
    sound = check_recipes.check(session, wanted, quiet=look)
    if look:
        known = competitions.find(session.workspace, competition)
        check_look.show(session, known, sound, fold)


def _is_submission(word: str) -> bool:
    path = Path(word)
    if path.suffix == ".csv":
        return "=" not in word or path.is_file()
    return path.is_file() and path.suffix not in (".yaml", ".yml")


def _submission(session: Session, competition: str | None, file: str) -> None:
    known = competitions.find(session.workspace, competition)
    competitions.manifest(session.workspace, known)
    faults.check(session, known, Path(file))

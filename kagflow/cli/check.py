"""kagflow check: is this submission CSV what Kaggle will accept?"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from kagflow.cli import competitions, faults
from kagflow.cli.session import guarded, open_session


@guarded
def command(
    context: typer.Context,
    submission: Annotated[Path, typer.Argument(help="A submission CSV.")],
    competition: Annotated[str | None, typer.Option(help="Default: the active one.")] = None,
) -> None:
    """Check a submission CSV against the competition's sample: ids, order, columns, run lengths."""
    session = open_session(context)
    known = competitions.find(session.workspace, competition)
    competitions.manifest(session.workspace, known)
    faults.check(session, known, submission)

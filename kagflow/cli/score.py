"""kagflow score: the competition's metric on any pair of CSV files."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from kagflow.cli import competitions
from kagflow.cli.session import guarded, open_session


@guarded
def command(
    context: typer.Context,
    submission: Annotated[Path, typer.Argument(help="The submission CSV.")],
    truth: Annotated[Path, typer.Option(help="The solution CSV, optionally with Usage.")],
    competition: Annotated[str | None, typer.Option(help="Default: the active one.")] = None,
) -> None:
    """Score a submission against a solution: in all, per class, per Usage."""
    from kagflow.task.score import score_files

    session = open_session(context)
    known = competitions.find(session.workspace, competition)
    scores = score_files(submission, truth, known.config.task())
    classes = [f"class {label}" for label in known.config.classes]
    rows = [
        (
            part,
            one.images,
            f"{one.value:.5f}",
            f"{one.floor:.5f}",
            "-" if one.nonempty is None else f"{one.nonempty:.4f}",
            *(f"{value:.4f}" for value in one.per_class),
        )
        for part, one in scores.items()
    ]
    columns = ("part", "images", "score", "all-empty", "non-empty", *classes)
    session.out.table(submission.name, columns, rows)
    session.out.result({"scores": {part: asdict(one) for part, one in scores.items()}})

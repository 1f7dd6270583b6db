"""kagflow score: the competition's metric on any pair of CSV files."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from kagflow.cli import competitions
from kagflow.cli.session import Session, guarded, open_session

if TYPE_CHECKING:
    from kagflow.task.score import Score
    from kagflow.task.spec import TaskSpec
    from kagflow.task.table import Table
    from kagflow.task.truth import Truth


@guarded
def command(
    context: typer.Context,
    submission: Annotated[Path, typer.Argument(help="The submission CSV.")],
    truth: Annotated[Path, typer.Option(help="The solution CSV, optionally with Usage.")],
    competition: Annotated[str | None, typer.Option(help="Default: the active one.")] = None,
) -> None:
    """Score a submission against a solution: in all, per class, per Usage.

    The solution has rows of image, class and mask, as the labels of training have, and optionally
    Usage (Public, Private), Height and Width. Where it lists masks only, other images are clean.
    """
    from kagflow.task.score import score_tables
    from kagflow.task.table import read_table
    from kagflow.task.truth import read_truth

    session = open_session(context)
    spec = competitions.find(session.workspace, competition).config.task()
    given = read_table(submission)
    whole, clean = _with_clean(session, read_truth(truth, spec), given, spec)
    scores = score_tables(given, whole, spec)
    classes = [f"class {label}" for label in spec.classes]
    columns = ("part", "images", "score", "all-empty", "non-empty", *classes)
    session.out.table(submission.name, columns, [_row(*one) for one in scores.items()])
    session.out.result(
        {
            "metric": spec.metric,
            "classes": spec.classes,
            "counted_clean": clean,
            "scores": {part: asdict(one) for part, one in scores.items()},
        }
    )


def _with_clean(session: Session, truth: Truth, given: Table, spec: TaskSpec) -> tuple[Truth, int]:
    """Count images that only the submission names as clean, where labels list masks only."""
    from kagflow.task import forms

    named = dict.fromkeys(image_id for image_id, _ in forms.keys(given, spec))
    new = [image_id for image_id in named if image_id not in truth.labels]
    if not new or truth.empty_rows or truth.parts or len(new) == len(named):
        return truth, 0
    session.out.warn(
        f"{truth.path} lists no clean image: {len(new)} images that it lacks are counted as clean"
    )
    return truth.with_clean(new), len(new)


def _row(part: str, one: Score) -> tuple[object, ...]:
    return (
        part,
        one.images,
        f"{one.value:.5f}",
        f"{one.floor:.5f}",
        "-" if one.nonempty is None else f"{one.nonempty:.4f}",
        *(f"{value:.4f}" for value in one.per_class),
    )

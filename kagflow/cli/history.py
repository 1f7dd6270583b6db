"""kagflow history: every submission, from which pack, at what score."""

from __future__ import annotations

from typing import Annotated

import typer

from kagflow.cli import competitions
from kagflow.cli.session import Session, guarded, open_session, sole
from kagflow.workspace import user_state


@guarded
def command(
    context: typer.Context,
    words: Annotated[list[str] | None, typer.Argument(metavar="[REF]")] = None,
    competition: Annotated[str | None, typer.Option(help="Default: all of them.")] = None,
) -> None:
    """List the submissions with CV and scores, or tell everything known of one."""
    from kagflow.ship import history
    from kagflow.ship.records import Records

    session = open_session(context)
    records = Records(user_state())
    ref = sole(words or [], "reference")
    profile = session.workspace.profile
    if ref is not None:
        row = history.as_dict(history.find(records, ref, profile=profile))
        session.out.table(f"submission {ref}", ("", ""), [(key, row[key]) for key in row])
        session.out.result(row)
        return
    name = competitions.find(session.workspace, competition).name if competition else None
    rows = [
        history.as_dict(row) for row in history.history(records, profile=profile, competition=name)
    ]
    _table(session, rows)
    text = "" if rows else "nothing was submitted yet\nnext: kagflow submit --dry-run"
    session.out.result({"submissions": rows}, text)


def _table(session: Session, rows: list[dict[str, object]]) -> None:
    columns = {
        "ref": "ref", "intent_at": "when", "pack": "pack", "cv_crossfitted": "CV",
        "cv_naive": "CV naive", "floor": "all-empty", "projected_p50": "projected min",
        "real_minutes": "real min", "public": "public", "private": "private", "status": "status",
    }  # fmt: skip
    if rows:
        session.out.table(
            "submissions",
            list(columns.values()),
            [[_cell(row[key]) for key in columns] for row in rows],
        )


def _cell(value: object) -> str:
    if isinstance(value, float):
        return f"{value:.4f}"
    return "-" if value is None else str(value)[:19]

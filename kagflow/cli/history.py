"""kagflow history: every submission, from which pack, at what score."""

from __future__ import annotations

from typing import Annotated

import typer

from kagflow.cli import competitions, history_screen, pending
from kagflow.cli.session import guarded, open_session, sole
from kagflow.workspace import user_state


@guarded
def command(
    context: typer.Context,
    words: Annotated[list[str] | None, typer.Argument(metavar="[REF]")] = None,
    competition: Annotated[str | None, typer.Option(help="Default: all of them.")] = None,
) -> None:
    """List the submissions with CV and scores, or explain one; what is pending is asked about.

    With three scored submissions the line from CV to public score is drawn, and what lies off it.
    """
    from kagflow.ship import history
    from kagflow.ship.records import Records

    session = open_session(context)
    records = Records(user_state())
    ref = sole(words or [], "reference")
    profile = session.workspace.profile
    _, why = pending.refresh(session, records)
    if why:
        session.out.warn(f"what is pending was not asked about: {why}")
    if ref is not None:
        found = history.find(records, ref, profile=profile)
        explained = history_screen.explain(session, found)
        session.out.result({**history.as_dict(found), "explained": explained})
        return
    name = competitions.find(session.workspace, competition).name if competition else None
    listed = history.history(records, profile=profile, competition=name)
    rows = [history.as_dict(row) for row in listed]
    if rows:
        history_screen.table(session, rows)
    lines = history_screen.lines(listed)
    text = "" if rows else f"nothing was submitted yet\nnext: {session.command('submit --dry-run')}"
    told = {name: line.to_dict() for name, line in lines.items()}
    session.out.result(
        {"submissions": rows, "lines": told},
        text or "\n".join(history_screen.sentences(lines)),
    )

"""kagflow history: every submission, from which pack, at what score."""

from __future__ import annotations

from typing import Annotated

import typer

from kagflow.cli import competitions, history_screen, pending
from kagflow.cli.session import Session, guarded, open_session, sole
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
        row, notes = history.as_dict(found), history.notes(found)
        explained = history_screen.explain(session, found)
        _tell(session, notes)
        session.out.result({**row, "notes": notes, "explained": explained})
        return
    name = competitions.find(session.workspace, competition).name if competition else None
    listed = history.history(records, profile=profile, competition=name)
    rows = [history.as_dict(row) for row in listed]
    notes = list(dict.fromkeys(note for row in listed for note in history.notes(row)))
    if rows:
        history_screen.table(session, rows)
    _tell(session, notes)
    lines = history_screen.lines(listed)
    text = "" if rows else f"nothing was submitted yet\nnext: {session.command('submit --dry-run')}"
    told = {name: line.to_dict() for name, line in lines.items()}
    session.out.result(
        {"submissions": rows, "notes": notes, "lines": told},
        text or "\n".join(history_screen.sentences(lines)),
    )


def _tell(session: Session, notes: list[str]) -> None:
    from kagflow.ship.history import UNSEEN

    for note in notes:
        if note == UNSEEN:
            session.out.say(note)
        else:
            session.out.warn(note)

"""Remember where a training was handed over last, for a person who says --attach and no place."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from kagflow.cli.competitions import Known
from kagflow.cli.jobs import Job
from kagflow.cli.session import Session
from kagflow.errors import UsageError
from kagflow.workspace import user_state

if TYPE_CHECKING:
    from kagflow.ship.records import Records, StepRow

ORDER, PUSH, START = "order", "push ", "start "
KAGGLE, SSH = "kaggle", "ssh:"


def effect(session: Session, known: Known, planned: Sequence[Job]) -> dict[str, Any]:
    """Return what is noted of jobs that are handed over: whose they are, and their words."""
    return {
        "competition": known.name,
        "root": str(session.workspace.root),
        "profile": session.workspace.profile,
        "words": [list(job.words) for job in planned],
    }


@contextmanager
def noted(
    session: Session, known: Known, planned: Sequence[Job], *, host: str, job: str, started: str
) -> Iterator[None]:
    """Note that jobs are handed over to a host, before and after the block that does it.

    A host itself knows more of it; here is only noted that it was this one, and when.
    """
    from kagflow.ship.records import Records

    records = Records(user_state())
    told = effect(session, known, planned) | {"on": f"{SSH}{host}"}
    step = records.intend(f"{SSH}{job}", f"{START}{started}", told)
    yield
    records.done(step, {})


def mine(session: Session, known: Known, row: StepRow) -> bool:
    """Tell whether a step is of this workspace, competition and profile."""
    wanted = effect(session, known, ())
    return all(row.effect.get(key) == wanted[key] for key in ("competition", "root", "profile"))


def pushed(records: Records, job: str) -> str:
    """Return when something of an order was pushed last, as ISO text; "" where nothing was."""
    from kagflow.ship.records import StepRow

    rows = [row for row in records.select(StepRow, job=job) if row.name.startswith(PUSH)]
    return max((row.intent_at for row in rows if row.state != "refused"), default="")


def last(session: Session, known: Known, planned: Sequence[Job]) -> str:
    """Return, and say, the place to which these jobs were handed over last; none are named: any.

    Raises UsageError where there is none.
    """
    from kagflow.ship.records import Records

    words = effect(session, known, planned)["words"]
    found = [
        (at, on)
        for at, on, given in _handed(session, known, Records(user_state()))
        if not planned or given == words
    ]
    if not found:
        raise UsageError(
            f"nothing of {'this' if planned else known.name} was handed over from this workspace",
            hint=session.command("train --on kaggle")
            + " (or --on ssh:HOST) hands it over; with --attach and its place, what was handed "
            "over from elsewhere is found too",
        )
    place = max(found)[1]
    session.out.say(f"handed over last: --on {place}")
    return place


def _handed(
    session: Session, known: Known, records: Records
) -> Iterator[tuple[str, str, list[list[str]]]]:
    """Yield when and where something was handed over, and its words."""
    from kagflow.ship.records import StepRow

    for row in records.select(StepRow):
        if not mine(session, known, row):
            continue
        if row.name == ORDER and (at := pushed(records, row.job)):
            yield at, KAGGLE, row.effect["words"]
        elif row.name.startswith(START):
            yield row.intent_at, str(row.effect["on"]), row.effect["words"]

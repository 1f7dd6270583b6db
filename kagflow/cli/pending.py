"""Bring pending submissions up to date, where Kaggle can be asked within a few seconds."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from kagflow.cli import remotes
from kagflow.cli.session import Session
from kagflow.errors import KagflowError, NetworkError

if TYPE_CHECKING:
    from kagflow.ship.records import Records, SubmissionRow

# A person waits no longer for what is known here too; in seconds, between attempts of a call.
PATIENCE_S = 5.0


def impatience(seconds: float = PATIENCE_S) -> Callable[[float], None]:
    """Return a sleep between attempts that gives up once it was asked for more than `seconds`."""
    left = seconds

    def sleep(wait: float) -> None:
        nonlocal left
        left -= wait
        if left < 0:
            raise NetworkError("Kaggle does not answer")
        time.sleep(wait)

    return sleep


def refresh(session: Session, records: Records) -> tuple[list[SubmissionRow], str]:
    """Return the submissions that were pending as they now are, and why Kaggle was not asked."""
    from kagflow.ship import history
    from kagflow.ship.refresh import refresh as ask

    profile = session.workspace.profile
    waiting = history.pending(records, profile=profile)
    if not waiting:
        return [], ""
    try:
        return ask(records, remotes.open_remote(session, sleep=impatience()), profile=profile), ""
    except KagflowError as error:
        return [], error.message

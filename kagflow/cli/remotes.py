"""Open the Kaggle side of a session: the real one, or the embedded one on demand."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from kagflow.cli.session import Session
from kagflow.workspace import user_state

if TYPE_CHECKING:
    from kagflow.ship.remote import Remote


def open_remote(session: Session) -> Remote:
    """Return the client of this session's profile, starting the embedded Kaggle if need be."""
    from kagflow.ship.remote import Remote

    if not session.local:
        return Remote("kaggle", state=user_state() / "client")
    return Remote("local", url=local_url(session), state=session.workspace.home / "client")


def local_url(session: Session) -> str:
    """Return the address of the local profile's server (KAGFLOW_LOCAL_URL names another one)."""
    from kagflow.rehearse import server

    named = os.environ.get("KAGFLOW_LOCAL_URL")
    if named:
        return named
    running = server.ensure(session.workspace.kaggle_store)
    if running.started:
        session.out.say(f"started the embedded Kaggle at {running.url}")
    return running.url

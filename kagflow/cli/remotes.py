"""Open the Kaggle side of a session: the real one, or the embedded one on demand."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from kagflow.cli.session import Session
from kagflow.workspace import user_state

if TYPE_CHECKING:
    from kagflow.ship.remote import Remote


def open_remote(session: Session, *, sleep: Callable[[float], None] = time.sleep) -> Remote:
    """Return the client of this session's profile, starting the embedded Kaggle if need be.

    `sleep` is called between two attempts of a call.
    """
    from kagflow.ship.remote import Remote

    url = local_url(session) if session.local else None
    return Remote(session.workspace.profile, url=url, state=client_state(session), sleep=sleep)


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


def local_runs(session: Session) -> bool:
    """Tell whether the local profile's server answers already; starts none."""
    from kagflow.rehearse import server

    named = os.environ.get("KAGFLOW_LOCAL_URL")
    return bool(named) or server.status(session.workspace.kaggle_store) is not None


def client_state(session: Session) -> Path:
    """Return this profile's own folder for half-done uploads and what is known of Kaggle."""
    return session.workspace.home / "client" if session.local else user_state() / "client"

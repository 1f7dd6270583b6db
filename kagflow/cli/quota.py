"""kagflow quota: the week's GPU hours, as Kaggle counts them and as the ledger explains them."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING

import typer

from kagflow.cli import remotes
from kagflow.cli.session import guarded, open_session
from kagflow.workspace import user_state

if TYPE_CHECKING:
    from kagflow.ship.remote_types import Quota


@guarded
def command(context: typer.Context) -> None:
    """Show the hours used, reserved and left this week, and what the ledger knows of them."""
    from kagflow.ship import hours
    from kagflow.ship.records import Records

    session = open_session(context)
    remote = remotes.open_remote(session)
    view = remote.quota()
    records = Records(user_state())
    profile = session.workspace.profile
    hours.snapshot(records, view, profile=profile, account=remote.account())
    week = hours.hours_this_week(
        records, profile=profile, account=remote.account(), refresh=view.refresh
    )
    rows = [_row(name, one) for name, one in (("GPU", view.gpu), ("TPU", view.tpu)) if one]
    session.out.table("hours this week", ("", "used", "reserved", "left", "allowed"), rows)
    refresh = view.refresh.astimezone().strftime("%a %d %b %H:%M %Z") if view.refresh else "unknown"
    session.out.result(
        {"account": remote.account(), "quota": asdict(view), "ledger": hours.as_dict(week)},
        f"refresh: {refresh}; the ledger knows of {week.seconds / 3600:.2f} h on Kaggle",
    )


def _row(name: str, quota: Quota) -> tuple[str, ...]:
    left = quota.total - quota.used - quota.reserved
    cells = (quota.used, quota.reserved, left, quota.total)
    return (name, *(f"{seconds / 3600:.2f}" for seconds in cells))

"""Keep what the week's quota was said to be: by Kaggle, or by a person who read it in a browser."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Literal

from kagflow.ship import hours
from kagflow.ship.hours import Family
from kagflow.ship.records import QuotaRow, Records, SubmissionRow, now
from kagflow.ship.remote_types import Quota, QuotaView


@dataclass(frozen=True)
class Count:
    """Hold a count of the week's seconds; `live` where Kaggle gave it just now.

    `total` None where nobody said how much is allowed. `at` is by this machine's clock.
    """

    used: float
    reserved: float
    total: float | None
    at: datetime
    source: Literal["server", "user"]
    live: bool = False


def snapshot(records: Records, view: QuotaView, *, profile: str, account: str) -> list[QuotaRow]:
    """Keep what the server says of the week's quotas."""
    at, refresh = now(), view.refresh.isoformat() if view.refresh else None
    found: list[tuple[str, Quota | None]] = [("gpu", view.gpu), ("tpu", view.tpu)]
    return [
        records.add(
            QuotaRow(
                profile, account, at, name,
                used=quota.used, reserved=quota.reserved, total=quota.total,
                minimum=quota.minimum, refresh=refresh, source="server",
            )
        )
        for name, quota in found
        if quota is not None
    ]  # fmt: skip


def enter(
    records: Records, *, profile: str, account: str, used: float, total: float | None
) -> QuotaRow:
    """Keep a count of GPU seconds that a person read elsewhere; a `total` of 0 is not known."""
    row = QuotaRow(
        profile, account, now(), "gpu",
        used=used, reserved=0.0, total=total or 0.0, minimum=0.0, refresh=None, source="user",
    )  # fmt: skip
    return records.add(row)


def live_count(quota: Quota, at: datetime) -> Count:
    """Return what Kaggle just said as a count."""
    return Count(quota.used, quota.reserved, quota.total, at, "server", live=True)


def last_count(
    records: Records, *, profile: str, account: str, accelerator: Family
) -> tuple[Count | None, datetime | None]:
    """Return the newest count that was kept and the newest refresh that Kaggle named."""
    rows = records.select(QuotaRow, profile=profile, account=account, accelerator=accelerator)
    rows.sort(key=lambda row: row.at)
    told = [hours.moment(row.refresh) for row in rows if row.refresh]
    if not rows:
        return None, None
    newest = rows[-1]
    source: Literal["server", "user"] = "user" if newest.source == "user" else "server"
    total = next((row.total for row in reversed(rows) if row.total), None)
    count = Count(newest.used, newest.reserved, total, hours.moment(newest.at), source)
    return count, told[-1] if told else None


def last_account(records: Records, *, profile: str) -> str:
    """Return the account that was last heard of under a profile, "" where none was."""
    quota = [(row.at, row.account) for row in records.select(QuotaRow, profile=profile)]
    sent = [(row.intent_at, row.account) for row in records.select(SubmissionRow, profile=profile)]
    return max([*quota, *sent], default=("", ""))[1]

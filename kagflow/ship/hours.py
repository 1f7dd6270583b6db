"""Count hours: what ran where, how long, and in which of Kaggle's weeks.

All arithmetic is in UTC. A week starts on Saturday at 00:00 UTC (facts of 2026) unless the server
says when it refreshes.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from kagflow.ship.records import HoursRow, QuotaRow, Records, now
from kagflow.ship.remote_types import Quota, QuotaView

WEEK = timedelta(days=7)
SATURDAY = 5


@dataclass(frozen=True)
class Week:
    """Hold the seconds of one week by kind; `open` counts what still runs, up to now."""

    start: datetime
    end: datetime
    by_kind: dict[str, float]
    open: int

    @property
    def seconds(self) -> float:
        """Return the seconds of all kinds."""
        return sum(self.by_kind.values())


def week_start(at: datetime, refresh: datetime | None = None) -> datetime:
    """Return when the week around an aware `at` began; `refresh` is any of the server's resets."""
    at = at.astimezone(UTC)
    if refresh is not None:
        return refresh.astimezone(UTC) + WEEK * ((at - refresh) // WEEK)
    midnight = at.replace(hour=0, minute=0, second=0, microsecond=0)
    return midnight - timedelta(days=(at.weekday() - SATURDAY) % 7)


def begin(records: Records, row: HoursRow) -> HoursRow:
    """Open a stretch; the same profile, account, kind, subject and start is the same stretch."""
    return records.add(row)


def end(
    records: Records, row: HoursRow, *, seconds: float | None = None, source: str = "measured"
) -> HoursRow:
    """Close a stretch, once; `seconds` is what it counted where that is known better."""
    if row.ended is not None:
        return row
    moment = now()
    if seconds is None:
        seconds = (_read(moment) - _read(row.started)).total_seconds()
    return records.update(HoursRow, row.id, ended=moment, seconds=seconds, source=source)


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


def hours_this_week(
    records: Records,
    *,
    profile: str,
    account: str | None = None,
    place: str | None = "kaggle",
    at: datetime | None = None,
    refresh: datetime | None = None,
) -> Week:
    """Sum what the ledger knows of the week around `at` (now); a stretch is split at the edge."""
    at = at or datetime.now(UTC)
    start = week_start(at, refresh)
    rows = records.select(HoursRow, profile=profile, account=account, place=place)
    return in_window(rows, start, min(at, start + WEEK))


def in_window(rows: Iterable[HoursRow], start: datetime, until: datetime) -> Week:
    """Sum stretches between two moments, each by the share of it that lies inside."""
    by_kind: dict[str, float] = {}
    still = 0
    for row in rows:
        began = _read(row.started)
        ended = _read(row.ended) if row.ended else max(until, began)
        inside = (min(ended, until) - max(began, start)).total_seconds()
        if inside <= 0 and not (ended == began and start <= began < until):
            continue
        still += row.ended is None
        length = (ended - began).total_seconds()
        counted = row.seconds if row.seconds is not None else length
        share = inside / length if length > 0 else 1.0
        by_kind[row.kind] = by_kind.get(row.kind, 0.0) + counted * share
    return Week(start, start + WEEK, by_kind, still)


def ended_within(records: Records, seconds: float, **where: Any) -> float:
    """Sum the seconds of Kaggle's saved runs that ended no longer than `seconds` ago."""
    since = datetime.now(UTC) - timedelta(seconds=seconds)
    rows = records.select(HoursRow, place="kaggle", **where)
    ended = (row for row in rows if row.kind == "kernel" and row.ended)
    return sum(row.seconds or 0.0 for row in ended if _read(str(row.ended)) >= since)


def spent(records: Records, *, profile: str, competition: str | None = None) -> dict[str, float]:
    """Return all seconds by kind that the ledger knows of a competition."""
    sums: dict[str, float] = {}
    for row in records.select(HoursRow, profile=profile, competition=competition):
        sums[row.kind] = sums.get(row.kind, 0.0) + (row.seconds or 0.0)
    return sums


def as_dict(week: Week) -> dict[str, Any]:
    """Return a week as plain JSON values, hours to four places."""
    return {
        "start": week.start.isoformat(),
        "end": week.end.isoformat(),
        "open": week.open,
        "hours": {kind: round(value / 3600, 4) for kind, value in sorted(week.by_kind.items())},
        "total": round(week.seconds / 3600, 4),
    }


def _read(text: str) -> datetime:
    at = datetime.fromisoformat(text)
    return at if at.tzinfo else at.replace(tzinfo=UTC)

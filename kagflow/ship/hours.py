"""Count hours: what ran where, how long, and in which of Kaggle's weeks.

All arithmetic is in UTC. A week starts on Saturday at 00:00 UTC (facts of 2026) unless the server
says when it refreshes. The ledger's times are this machine's, a refresh is by Kaggle's clock.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Literal

from kagflow.ship.records import HoursRow, Records, now

WEEK = timedelta(days=7)
SATURDAY = 5
# No run on Kaggle lasts longer: a stretch that is open for more was left open by a kill.
LONGEST = timedelta(hours=12)
Family = Literal["gpu", "tpu"]


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


@dataclass(frozen=True)
class Window:
    """Hold a week of the quota in UTC; `sure` where Kaggle itself said when it ends."""

    start: datetime
    end: datetime
    sure: bool

    def here(self, ahead: timedelta) -> tuple[datetime, datetime]:
        """Return start and end by this machine's clock, Kaggle's being `ahead` of it."""
        return self.start - ahead, self.end - ahead


def week_start(
    at: datetime, refresh: datetime | None = None, *, weekday: int = SATURDAY
) -> datetime:
    """Return when the week around an aware `at` began; `refresh` is any of the server's resets."""
    at = at.astimezone(UTC)
    if refresh is not None:
        return refresh.astimezone(UTC) + WEEK * ((at - refresh) // WEEK)
    midnight = at.replace(hour=0, minute=0, second=0, microsecond=0)
    return midnight - timedelta(days=(at.weekday() - weekday) % 7)


def window(at: datetime, known: datetime | None = None, *, weekday: int = SATURDAY) -> Window:
    """Return the week around `at`, from any refresh that is known, else from the weekday."""
    start = week_start(at, known, weekday=weekday)
    return Window(start, start + WEEK, known is not None)


def window_until(refresh: datetime) -> Window:
    """Return the week that ends at the refresh which Kaggle just named, whatever clocks say."""
    end = refresh.astimezone(UTC)
    return Window(end - WEEK, end, sure=True)


def family(accelerator: str) -> Family | None:
    """Return whose quota a machine shape draws on; None for one that costs none."""
    name = accelerator.lower()
    if name in {"", "none", "cpu"}:
        return None
    return "tpu" if name.startswith("tpu") else "gpu"


def begin(records: Records, row: HoursRow) -> HoursRow:
    """Open a stretch; the same profile, account, kind, subject and start is the same stretch."""
    return records.add(row)


def end(
    records: Records,
    row: HoursRow,
    *,
    seconds: float | None = None,
    source: str = "measured",
    noticed: bool = False,
) -> HoursRow:
    """Close a stretch, once; `seconds` is what it counted where that is known better.

    A stretch that was only `noticed` to have ended did so when its seconds were over, at the latest
    now.
    """
    if row.ended is not None:
        return row
    ended = now()
    if noticed and seconds is not None:
        ended = min(ended, _text(moment(row.started) + timedelta(seconds=seconds)))
    if seconds is None:
        seconds = (moment(ended) - moment(row.started)).total_seconds()
    return records.update(HoursRow, row.id, ended=ended, seconds=seconds, source=source)


def hours_this_week(
    records: Records,
    *,
    profile: str,
    account: str | None = None,
    place: str | None = "kaggle",
    at: datetime | None = None,
    refresh: datetime | None = None,
) -> Week:
    """Sum what the ledger knows of the week around `at` (now); a stretch is split at the edge.

    Stretches of every accelerator count, and of none.
    """
    at = at or datetime.now(UTC)
    start = week_start(at, refresh)
    rows = records.select(HoursRow, profile=profile, account=account, place=place)
    return in_window(rows, start, min(at, start + WEEK))


def in_window(rows: Iterable[HoursRow], start: datetime, until: datetime) -> Week:
    """Sum stretches between two moments, each by the share of it that lies inside."""
    by_kind: dict[str, float] = {}
    still = 0
    for row, seconds in shares(rows, start, until):
        still += row.ended is None
        by_kind[row.kind] = by_kind.get(row.kind, 0.0) + seconds
    return Week(start, start + WEEK, by_kind, still)


def shares(
    rows: Iterable[HoursRow], start: datetime, until: datetime
) -> Iterator[tuple[HoursRow, float]]:
    """Yield each stretch that touches a window with its seconds inside; an open one lasts on."""
    for row in rows:
        began, ended = span(row, until)
        inside = (min(ended, until) - max(began, start)).total_seconds()
        if inside <= 0 and not (ended == began and start <= began < until):
            continue
        length = (ended - began).total_seconds()
        counted = row.seconds if row.seconds is not None else length
        yield row, counted * (inside / length if length > 0 else 1.0)


def span(row: HoursRow, until: datetime) -> tuple[datetime, datetime]:
    """Return when a stretch began and ended, an open one at `until` or where it must have ended."""
    began = moment(row.started)
    if row.ended is not None:
        return began, max(moment(row.ended), began)
    return began, max(began, min(until, began + LONGEST))


def ended_within(records: Records, seconds: float, **where: Any) -> float:
    """Sum the seconds of Kaggle's saved runs that ended no longer than `seconds` ago."""
    since = datetime.now(UTC) - timedelta(seconds=seconds)
    rows = records.select(HoursRow, place="kaggle", **where)
    ended = (row for row in rows if row.kind in {"kernel", "train"} and row.ended)
    return sum(row.seconds or 0.0 for row in ended if moment(str(row.ended)) >= since)


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


def _text(at: datetime) -> str:
    return at.astimezone(UTC).isoformat(timespec="milliseconds")


def moment(text: str) -> datetime:
    """Read a time of the ledger; one without a zone is UTC."""
    at = datetime.fromisoformat(text)
    return at if at.tzinfo else at.replace(tzinfo=UTC)

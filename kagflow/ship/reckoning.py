"""Reconcile the week's hours: what Kaggle counts, what the ledger explains, what is left.

Where Kaggle can't be asked, the last count that is known (Kaggle's own, or one that a person read
in a browser) goes on with what the ledger noted since. What cannot be known is a range: whether a
rerun is billed until somebody looked, and whether a run that just ended shows already.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from kagflow.ship import hours
from kagflow.ship.counts import Count
from kagflow.ship.hours import Family, Window
from kagflow.ship.ledger_lines import NOTHING, Line, Range, Terms, bounds, lines_of
from kagflow.ship.records import HoursRow, Records

DRIFT_S = 360.0  # a tenth of an hour: below it, counts agree


@dataclass(frozen=True)
class Reckoning:
    """Hold the week of one account and accelerator, in seconds; None for what is not known.

    `explained` is what the ledger knows of Kaggle's `count`, `elsewhere` the rest of it, `drift`
    by how much the two contradict each other (positive where Kaggle counts more).
    """

    accelerator: Family
    window: Window
    count: Count | None
    lines: tuple[Line, ...]
    used: Range
    reserved: float
    total: float | None
    explained: Range
    elsewhere: Range | None
    drift: float

    @property
    def left(self) -> float | None:
        """Return the seconds that are surely left; None where the allowance is not known."""
        if self.total is None:
            return None
        return max(0.0, self.total - self.used.most - self.reserved)

    @property
    def drifts(self) -> bool:
        """Tell whether the counts differ by more than a tenth of an hour."""
        return abs(self.drift) > DRIFT_S

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON values, hours to four places."""
        return {
            "accelerator": self.accelerator,
            "week": {
                "start": self.window.start.isoformat(),
                "end": self.window.end.isoformat(),
                "told_by_kaggle": self.window.sure,
            },
            "source": self.count.source if self.count else "ledger",
            "counted_at": self.count.at.isoformat() if self.count else None,
            "used": self.used.in_hours(),
            "reserved": _hours(self.reserved),
            "left": _hours(self.left),
            "allowed": _hours(self.total),
            "explained": self.explained.in_hours(),
            "elsewhere": self.elsewhere.in_hours() if self.elsewhere else None,
            "drift": _hours(self.drift),
            "lines": [
                {
                    "kind": line.kind,
                    "what": line.what,
                    "competition": line.competition,
                    "place": line.place,
                    "hours": line.seconds.in_hours(),
                    "running": line.running,
                }
                for line in self.lines
            ],
        }


def reckon(  # noqa: PLR0913 - one keyword for each thing that is compared
    records: Records,
    *,
    profile: str,
    account: str,
    window: Window,
    count: Count | None,
    terms: Terms,
    accelerator: Family = "gpu",
    at: datetime | None = None,
) -> Reckoning:
    """Compare a count with the ledger's stretches on Kaggle in the same week; see Reckoning.

    A count of an earlier week says only how much is allowed.
    """
    at = (at or datetime.now(UTC)).astimezone(UTC)
    start, end = window.here(terms.ahead)
    until = min(at, end)
    rows = [
        row
        for row in records.select(HoursRow, profile=profile, account=account, place="kaggle")
        if hours.family(row.accelerator) == accelerator
    ]
    total = count.total if count else None
    if count is not None and not count.live and not start <= count.at < end:
        count = None
    inside = list(hours.shares(rows, start, until))
    lines = lines_of(inside, records, terms, profile)
    counted = count.used if count else 0.0
    explained = _before(inside, count, terms) if count else _sum(inside, terms)
    later = _after(rows, inside, count, until, terms) if count else explained
    elsewhere = None
    if count is not None:
        elsewhere = Range(max(0.0, counted - explained.most), max(0.0, counted - explained.least))
    return Reckoning(
        accelerator=accelerator,
        window=window,
        count=count,
        lines=lines,
        used=Range(counted, counted) + later,
        reserved=count.reserved if count and count.live else _held(rows, until),
        total=total,
        explained=explained,
        elsewhere=elsewhere,
        drift=_drift(counted, explained) if count else 0.0,
    )


def _sum(inside: Iterable[tuple[HoursRow, float]], terms: Terms) -> Range:
    return sum((bounds(row, seconds, terms) for row, seconds in inside), NOTHING)


def _before(inside: Sequence[tuple[HoursRow, float]], count: Count, terms: Terms) -> Range:
    """Return what a count holds of the ledger: what had ended, the latest of it perhaps."""
    sure = count.at - timedelta(seconds=terms.lag_s)
    found = NOTHING
    for row, seconds in inside:
        if row.ended is None or hours.moment(row.ended) > count.at:
            continue
        cost = bounds(row, seconds, terms)
        shows = hours.moment(row.ended) <= sure
        found += cost if shows else Range(0.0, cost.most)
    return found


def _after(
    rows: Sequence[HoursRow],
    inside: Sequence[tuple[HoursRow, float]],
    count: Count,
    until: datetime,
    terms: Terms,
) -> Range:
    """Return what came to a count since it was taken; what runs is reserved in a live one."""
    if count.at < until and not count.live:
        least = _sum(hours.shares(rows, count.at, until), terms).least
    else:
        least = 0.0
    sure = count.at - timedelta(seconds=terms.lag_s)
    most = 0.0
    for row, seconds in inside:
        if row.ended is None and count.live:
            continue
        if row.ended is None or hours.moment(row.ended) > sure:
            most += bounds(row, seconds, terms).most
    return Range(least, max(least, most))


def _held(rows: Iterable[HoursRow], until: datetime) -> float:
    """Return what running kernels may still take, by their forecasts."""
    held = 0.0
    for row in rows:
        began, ended = hours.span(row, until)
        if row.ended is None and began <= until < began + hours.LONGEST:
            held += max(0.0, (row.forecast_seconds or 0.0) - (ended - began).total_seconds())
    return held


def _drift(counted: float, explained: Range) -> float:
    if counted > explained.most:
        return counted - explained.most
    return min(0.0, counted - explained.least)


def _hours(seconds: float | None) -> float | None:
    return None if seconds is None else round(seconds / 3600, 4)

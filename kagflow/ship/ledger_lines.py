"""Say what each thing took of a week: runs, kernels and submissions, by the ledger's stretches."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta

from kagflow.ship import hours
from kagflow.ship.hours import Window
from kagflow.ship.records import HoursRow, Records, SubmissionRow


@dataclass(frozen=True)
class Range:
    """Hold seconds that are only known to lie between two bounds."""

    least: float
    most: float

    def __add__(self, other: Range) -> Range:
        """Return the range of a sum."""
        return Range(self.least + other.least, self.most + other.most)

    def in_hours(self) -> dict[str, float]:
        """Return plain JSON values, hours to four places."""
        return {"least": round(self.least / 3600, 4), "most": round(self.most / 3600, 4)}


NOTHING = Range(0.0, 0.0)


@dataclass(frozen=True)
class Terms:
    """Say by which rules hours count: `billed` are reruns, None while that is not known.

    A run that ended within `lag_s` seconds may not show in Kaggle's count yet; `ahead` is
    Kaggle's clock of ours.
    """

    billed: bool | None = None
    lag_s: float = 0.0
    ahead: timedelta = timedelta(0)


@dataclass(frozen=True)
class Line:
    """Say what one thing took this week; `what` is a run's fold, a submission or a kernel."""

    kind: str
    what: str
    competition: str
    place: str
    seconds: Range
    running: bool


def lines_of(
    inside: Iterable[tuple[HoursRow, float]], records: Records, terms: Terms, profile: str
) -> tuple[Line, ...]:
    """Return a line for each thing among stretches and their seconds, the longest first."""
    name = _Names(records.select(SubmissionRow, profile=profile))
    found: dict[tuple[str, str, str], Line] = {}
    for row, seconds in inside:
        kind, what = name(row)
        key = (kind, what, row.place)
        before = found.get(key)
        found[key] = Line(
            kind,
            what,
            row.competition,
            row.place,
            bounds(row, seconds, terms) + (before.seconds if before else NOTHING),
            row.ended is None or bool(before and before.running),
        )
    return tuple(sorted(found.values(), key=lambda line: -line.seconds.most))


def lines_of_others(
    records: Records, *, profile: str, window: Window, at: datetime
) -> tuple[Line, ...]:
    """Return what ran this week on other machines, which no quota counts."""
    rows = [row for row in records.select(HoursRow, profile=profile) if row.place != "kaggle"]
    closed = [row for row in rows if row.ended is not None]
    inside = list(hours.shares(closed, window.start, min(at, window.end)))
    return lines_of(inside, records, Terms(), profile)


def bounds(row: HoursRow, seconds: float, terms: Terms) -> Range:
    """Return what a stretch's seconds may cost: a rerun perhaps nothing."""
    if row.kind != "submission":
        return Range(seconds, seconds)
    return Range(seconds if terms.billed else 0.0, 0.0 if terms.billed is False else seconds)


class _Names:
    """Name what a stretch belongs to: a kernel and its rerun are one submission."""

    def __init__(self, sent: Iterable[SubmissionRow]) -> None:
        self._by_kernel = {f"{row.kernel}/v{row.kernel_version}": row for row in sent if row.kernel}
        self._by_ref = {str(row.ref): row for row in self._by_kernel.values() if row.ref}

    def __call__(self, row: HoursRow) -> tuple[str, str]:
        sent = {"kernel": self._by_kernel, "submission": self._by_ref}.get(row.kind, {})
        one = sent.get(row.subject)
        if one is None:
            return row.kind, row.subject
        if one.ref is None:
            return "kernel", f"kernel version {one.kernel_version} of pack {one.pack}"
        return "submission", f"submission {one.ref}"

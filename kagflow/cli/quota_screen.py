"""Draw the week's hours: a bar, what took them, what is next, and what is not known."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from kagflow.cli import words
from kagflow.cli.planned import HOW, Planned
from kagflow.cli.session import Session

if TYPE_CHECKING:
    from kagflow.ship.budget import Judgement
    from kagflow.ship.ledger_lines import Line, Range
    from kagflow.ship.reckoning import Reckoning

LISTED = 12
SEEN = 18.0  # seconds: half of 0.01 h


@dataclass(frozen=True)
class Screen:
    """Hold everything that `kagflow quota` shows; the first of `weeks` is the GPU's."""

    session: Session
    account: str
    why: str
    weeks: Sequence[Reckoning]
    here: Sequence[Line]
    plans: Sequence[Planned]
    at: datetime

    @property
    def judgement(self) -> Judgement:
        """What of the plans fits into the GPU hours that are left."""
        from kagflow.ship.budget import Judgement

        gpu = self.weeks[0]
        known = tuple(one.action for one in self.plans if one.action is not None)
        return Judgement(known, gpu.left, gpu.window.end)

    def draw(self) -> None:
        """Print the tables and bars."""
        out, profile = self.session.out, self.session.workspace.profile
        who = f"{self.account or 'an unknown account'} on {profile}"
        columns = ("", "used", "reserved", "left", "allowed")
        out.table(f"hours this week, {who}", columns, [_week(one) for one in self.weeks])
        for one in self.weeks:
            if one.accelerator == "gpu" or one.used.most or one.reserved:
                out.bar(_parts(one))
                self._took(one)
        if self.here:
            rows = [(one.what, one.competition, one.place, span(one.seconds)) for one in self.here]
            title = "this week on other machines, which no quota counts"
            out.table(title, ("what", "competition", "where", "time"), rows[:LISTED])
        self._next()

    def _took(self, week: Reckoning) -> None:
        rows = [
            (one.what + (", running" if one.running else ""), one.competition, hours(one.seconds))
            for one in week.lines
        ]
        if len(rows) > LISTED:
            rows = [*rows[:LISTED], (f"and {len(rows) - LISTED} more", "", "")]
        if week.elsewhere is not None:
            rows.append(("elsewhere (a browser, another machine)", "", hours(week.elsewhere)))
        name = week.accelerator.upper()
        if rows:
            out = self.session.out
            out.table(f"what took {name} hours", ("what", "competition", "hours"), rows)

    def _next(self) -> None:
        if not self.plans:
            return
        fitting = {one.name for one in self.judgement.fitting}
        known = self.weeks[0].left is not None
        rows = []
        for one in self.plans:
            fold = one.fold
            gain = fold.per_hour if fold else None
            rows.append(
                (
                    one.what + (f", {fold.share:.0%} done" if fold and fold.share else ""),
                    "unknown" if one.action is None else _cost(one),
                    "-" if one.action is None or not known
                    else "yes" if one.action.name in fitting else "NO",
                    "-" if gain is None else f"{gain:+.4f}",
                    one.left_out or (f"fold {_list(fold.measured)} on {fold.machine}" if fold
                                     else "the rehearsal"),
                )
            )  # fmt: skip
        columns = ("what", "hours", "fits", "OOF gained an hour", "measured by")
        self.session.out.table("what may be next", columns, rows)

    def closing(self) -> str:
        """Return the sentences under the tables."""
        gpu = self.weeks[0]
        lines = [self._refresh(gpu)]
        if self.why:
            lines.append(f"Kaggle was not asked: {self.why}; {_basis(gpu)}")
        for week in self.weeks:
            lines += _remarks(week)
        if any(one.fold for one in self.plans):
            lines.append(HOW)
        return "\n".join(lines)

    def _refresh(self, gpu: Reckoning) -> str:
        end = gpu.window.end
        left = words.span((end - self.at).total_seconds())
        sure = "" if gpu.window.sure else " (believed; Kaggle was not asked)"
        there, here = (
            f"{end.astimezone(UTC):%a %d %b %H:%M} UTC",
            f"{end.astimezone():%a %d %b %H:%M}",
        )
        zone = "" if there.startswith(here) else f"{here} {end.astimezone():%Z}, "
        return f"refresh: {zone}{there}, in {left}{sure}"


def hours(seconds: Range) -> str:
    """Write a range of seconds as hours."""
    least, most = f"{seconds.least / 3600:.2f}", f"{seconds.most / 3600:.2f}"
    return most if least == most else f"{least} to {most}"


def span(seconds: Range) -> str:
    """Write a time that is known as people say it."""
    return words.span(seconds.most)


def _week(one: Reckoning) -> tuple[str, ...]:
    known = ("?" if value is None else f"{value / 3600:.2f}" for value in (one.left, one.total))
    return (one.accelerator.upper(), hours(one.used), f"{one.reserved / 3600:.2f}", *known)


def _parts(one: Reckoning) -> list[tuple[str, float, str]]:
    """Return the bar of a week: what is sure, what may be, what is held, what is free."""
    counted = one.count.used if one.count else one.used.least
    sure = min(counted, one.explained.least)
    maybe = min(counted, one.explained.most) - sure
    parts = [
        ("by the ledger", sure, "green"),
        ("the ledger or elsewhere", maybe, "yellow"),
        ("elsewhere", counted - sure - maybe, "magenta"),
        ("may be counted yet", one.used.most - counted, "bright_black"),
        ("reserved", one.reserved, "cyan"),
        ("left", one.left or 0.0, "default"),
    ]
    # What would be written as 0.00 h is not worth a word.
    return [
        (f"{label} {amount / 3600:.2f} h", amount if amount >= SEEN else 0.0, tint)
        for label, amount, tint in parts
    ]


def _basis(week: Reckoning) -> str:
    count = week.count
    if count is None:
        return "only what the ledger knows is counted (kagflow quota --used HOURS adds the rest)"
    who = "you entered" if count.source == "user" else "Kaggle told"
    return (
        f"the {count.used / 3600:.2f} h that {who} on {count.at.astimezone():%a %d %b %H:%M} go "
        "on with the ledger"
    )


def _remarks(week: Reckoning) -> list[str]:
    name, lines = week.accelerator.upper(), []
    who = "the count entered" if week.count and week.count.source == "user" else "Kaggle's count"
    if week.drifts and week.drift > 0:
        lines.append(
            f"drift: {who} holds {week.drift / 3600:.2f} {name} h that the ledger can't explain: "
            "a browser or another machine took them"
        )
    elif week.drifts:
        lines.append(
            f"drift: the ledger holds {-week.drift / 3600:.2f} {name} h that {who} lacks: they "
            "were not billed, or do not show yet"
        )
    if any(one.seconds.least < one.seconds.most for one in week.lines):
        lines.append(
            "whether reruns are billed is not known: hours are ranges until kagflow doctor --live "
            "found out"
        )
    if any(one.running for one in week.lines):
        lines.append(
            "what runs, or was left open by a kill, counts up to now: kagflow history asks"
        )
    if week.total is None:
        lines.append(
            f"how many {name} hours are allowed is not known: --used HOURS --allowed HOURS"
        )
    return lines


def _cost(one: Planned) -> str:
    from kagflow.ship.ledger_lines import Range

    assert one.action is not None
    return hours(Range(one.action.least, one.action.most))


def _list(folds: Sequence[int]) -> str:
    return ",".join(map(str, folds))

"""Hold what is about to run against the accelerator hours that are left, before it runs.

A forecast with a fifth on top must fit. Where it does not, the answer says what would, and a person
may still go on: nobody should lose a deadline to our caution.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from kagflow.errors import RemoteError

MARGIN = 1.2
OVER = "--over-quota"
SUBMISSION = "the submission"


@dataclass(frozen=True)
class Action:
    """Name something to run and the accelerator seconds that it will cost, at least and at most.

    The two differ where it is not known what is billed.
    """

    name: str
    least: float
    most: float


@dataclass(frozen=True)
class Cpu:
    """Offer the same without an accelerator: projected minutes, of so many that are allowed."""

    minutes: float
    limit: float
    command: str

    @property
    def fits(self) -> bool:
        """Tell whether the projection is within the limit."""
        return self.minutes <= self.limit


@dataclass(frozen=True)
class Judgement:
    """Say whether actions fit into the seconds left before `refresh`.

    `left` None: they cost none, or nobody knows how many are left; `cpu` None: nothing to offer.
    """

    actions: tuple[Action, ...]
    left: float | None
    refresh: datetime | None
    cpu: Cpu | None = None

    @property
    def needed(self) -> float:
        """The seconds that must be left: the forecast and a fifth more."""
        return MARGIN * sum(one.most for one in self.actions)

    @property
    def fits(self) -> bool:
        """Tell whether all of it fits, as far as is known."""
        return self.left is None or self.needed <= self.left

    @property
    def fitting(self) -> tuple[Action, ...]:
        """The actions that fit, taken in their order."""
        if self.left is None:
            return self.actions
        found: list[Action] = []
        for one in self.actions:
            if MARGIN * (sum(other.most for other in found) + one.most) <= self.left:
                found.append(one)
        return tuple(found)

    def describe(self) -> str:
        """Say the judgement in one sentence."""
        if not any(one.most for one in self.actions):
            return "costs no accelerator hours"
        need = (
            f"{_range(self.actions)} h are forecast, {self.needed / 3600:.2f} h with a fifth more"
        )
        if self.left is None:
            return f"{need}; how many are left is not known"
        verdict = "fits" if self.fits else "does not fit"
        return f"{verdict}: {need}; {self.left / 3600:.2f} h are left{before(self.refresh)}"

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON values, hours to four places."""
        return {
            "fits": self.fits,
            "needed_hours": round(self.needed / 3600, 4),
            "left_hours": None if self.left is None else round(self.left / 3600, 4),
            "refresh": self.refresh.isoformat() if self.refresh else None,
            "actions": [
                {
                    "name": one.name,
                    "least_hours": round(one.least / 3600, 4),
                    "most_hours": round(one.most / 3600, 4),
                }
                for one in self.actions
            ],
            "fitting": [one.name for one in self.fitting],
            "cpu": {"minutes": self.cpu.minutes, "limit": self.cpu.limit} if self.cpu else None,
            "text": self.describe(),
        }


def require(judgement: Judgement, *, over_quota: bool = False) -> None:
    """Raise RemoteError where the actions do not fit, saying what would.

    `over_quota` lets everything pass: Kaggle itself has the last word.
    """
    if judgement.fits or over_quota:
        return
    raise RemoteError(judgement.describe(), hint="; ".join(ways(judgement)))


def submission_cost(
    projected_s: float,
    *,
    save_s: float | None,
    rerun: str,
    billed: bool | None,
    limit_s: float,
) -> Action:
    """Return what a submission costs whose kernel predicts the whole test in `projected_s`.

    The saved version predicts everything unless Kaggle reruns it on hidden images; then it takes
    `save_s` (None: as much as all). The rerun costs as much again where reruns are billed, and may
    where that is not known. The session's limit bounds each.
    """
    whole = min(projected_s, limit_s)
    save = whole if rerun != "hidden" or save_s is None else min(save_s, limit_s)
    again = 0.0 if rerun == "none" or billed is False else whole
    return Action(SUBMISSION, save + (again if billed else 0.0), save + again)


def before(refresh: datetime | None) -> str:
    """Return the words for until when hours count, in UTC as Kaggle's week is."""
    return f" before {refresh.astimezone(UTC):%a %d %b %H:%M} UTC" if refresh else ""


def ways(judgement: Judgement) -> Iterable[str]:
    """Yield what can be done where not everything fits."""
    fitting = judgement.fitting
    if fitting:
        names = _listed([one.name for one in fitting])
        yield f"{names} {'fits' if len(fitting) == 1 else 'fit'}{before(judgement.refresh)}"
    if judgement.cpu and judgement.cpu.fits:
        cpu = judgement.cpu
        yield (
            f"{cpu.command} takes 0 accelerator hours: on a CPU, {_minutes(cpu.minutes)} of the "
            f"{cpu.limit:.0f} allowed are projected"
        )
    at = judgement.refresh
    until = f"until {at.astimezone(UTC):%a %d %b %H:%M} UTC" if at else "for the week's refresh"
    yield f"wait {until}, or go on with {OVER}"


def _minutes(value: float) -> str:
    return f"{value:.1f} min" if value < 10 else f"{value:.0f} min"


def _listed(names: Sequence[str]) -> str:
    """Write names as a list: fold 0, fold 1 and fold 2."""
    return " and ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)


def _range(actions: Iterable[Action]) -> str:
    pairs = [(one.least, one.most) for one in actions]
    least, most = (f"{sum(values) / 3600:.2f}" for values in zip(*pairs, strict=True))
    return most if most == least else f"{least} to {most}"

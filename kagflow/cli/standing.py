"""How a competition stands on Kaggle: deadline, submissions left, finals; never waits long."""

from __future__ import annotations

import contextlib
import json
import threading
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from kagflow import durable
from kagflow.cli import finals, remotes
from kagflow.cli.competitions import Known
from kagflow.cli.finals import Kept
from kagflow.cli.session import Session
from kagflow.errors import KagflowError, NetworkError

# An answer as young as this is not asked for again; one that takes longer is not waited for.
FRESH_S = 60.0
PATIENCE_S = 5.0
LAST_HOURS = 72.0


@dataclass(frozen=True)
class Standing:
    """Hold what Kaggle says; None where it was not asked, and `why` then says why.

    `deadline` may be of an earlier answer or of competition.yaml. `advice` is the last one of
    `shakeup`, `newer` counts the submissions that it did not know.
    """

    deadline: datetime | None
    left: int | None
    ticked: tuple[int, ...] | None
    why: str
    advice: Kept | None
    newer: int
    finals: int
    page: str

    @property
    def agrees(self) -> bool | None:
        """Tell whether what is ticked is what was advised; None where either is not known."""
        if self.ticked is None or self.advice is None or not self.advice.refs:
            return None
        return set(self.ticked) == set(self.advice.refs)

    def hours_left(self) -> float | None:
        """Return the hours until the deadline, negative after it; None where it is not known."""
        if self.deadline is None:
            return None
        return (self.deadline - now()).total_seconds() / 3600

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON values."""
        advice = self.advice
        return {
            "deadline": self.deadline.isoformat() if self.deadline else None,
            "hours_left": self.hours_left(),
            "submissions_left": self.left,
            "ticked": None if self.ticked is None else list(self.ticked),
            "advised": list(advice.refs) if advice else None,
            "advised_at": advice.at.isoformat() if advice else None,
            "newer_submissions": self.newer,
            "agrees": self.agrees,
            "not_asked": self.why or None,
        }


def now() -> datetime:
    """Return this moment."""
    return datetime.now(UTC)


def ask(session: Session, known: Known) -> Standing:
    """Return how the competition stands, with what can be learned within a few seconds."""
    file = remotes.client_state(session) / f"standing-{known.config.slug}.json"
    answers, why = _answers(session, known, file)
    advice = finals.read(session, known)
    sent = {row.ref for row in finals.submitted(session, known)}
    ticked = answers.get("ticked")
    return Standing(
        deadline=_moment(answers.get("deadline")) or _moment(known.config.limits.deadline),
        left=answers.get("left"),
        ticked=None if ticked is None else tuple(ticked),
        why=why,
        advice=advice,
        newer=len(sent - set(advice.seen)) if advice else len(sent),
        finals=known.config.finals,
        page=finals.page(known),
    )


def describe(standing: Standing) -> list[tuple[str, str]]:
    """Return the standing as rows of a table."""
    unknown = f"not known: {standing.why}"
    left = unknown if standing.left is None else f"{standing.left} left today (UTC)"
    ticked = unknown if standing.ticked is None else _refs(standing.ticked) or "none ticked"
    return [
        ("deadline", _deadline(standing)),
        ("submissions", left),
        ("finals", ticked),
        ("advised", _advised(standing)),
    ]


def alarms(standing: Standing) -> list[str]:
    """Return what must be said loudly: what is not done in the last 72 hours."""
    hours = standing.hours_left()
    if hours is None or not 0 < hours <= LAST_HOURS:
        return []
    head = f"the deadline is in {_span(hours)}"
    advice = standing.advice
    if advice is None:
        return [f"{head} and no finals were advised: kagflow shakeup"]
    told = []
    if standing.newer:
        told.append(f"{head} and {_count(standing.newer)} newer than the advice: kagflow shakeup")
    if standing.ticked is None:
        told.append(f"{head}; what is ticked is {_unknown(standing)}: look at {standing.page}")
    elif standing.agrees is False:
        have = f"{_refs(standing.ticked)} ticked" if standing.ticked else "no finals are ticked"
        told.append(f"{head}: {have}; tick {_refs(advice.refs)} on {standing.page}")
    return told


def _answers(session: Session, known: Known, file: Path) -> tuple[dict[str, Any], str]:
    """Return what Kaggle says of deadline, left and ticked, and why something is missing."""
    kept = _read(file)
    if kept and now() - datetime.fromisoformat(kept["at"]) < timedelta(seconds=FRESH_S):
        return kept, ""
    # Of an old answer only the deadline may still be true.
    old = {"deadline": kept.get("deadline")} if kept else {}
    if session.local and not remotes.local_runs(session):
        return old, "the embedded Kaggle is not running"
    found: dict[str, Any] = {}
    failure: list[str] = []

    def work() -> None:
        try:
            for name, call in _questions(session, known).items():
                found[name] = call()
        except KagflowError as error:
            failure.append(error.message)

    # A daemon: a call that hangs must not keep the command from ending.
    asking = threading.Thread(target=work, daemon=True)
    asking.start()
    asking.join(PATIENCE_S)
    answers = dict(found)
    if len(answers) == len(QUESTIONS):
        durable.write_json(file, {**answers, "at": now().isoformat()})
        return answers, ""
    why = failure[0] if failure else f"no answer within {PATIENCE_S:.0f} s"
    return old | answers, why


QUESTIONS = ("deadline", "left", "ticked")


def _questions(session: Session, known: Known) -> dict[str, Callable[[], Any]]:
    remote, slug = remotes.open_remote(session, sleep=_impatient), known.config.slug

    def deadline() -> str | None:
        at = remote.competition(slug).deadline
        return at.isoformat() if at else None

    calls = (
        deadline,
        lambda: remote.limits(slug).left,
        lambda: sorted(one.ref for one in remote.selected(slug)),
    )
    return dict(zip(QUESTIONS, calls, strict=True))


def _impatient(_: float) -> None:
    raise NetworkError("Kaggle does not answer")


def _read(file: Path) -> dict[str, Any]:
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
        value = json.loads(file.read_text(encoding="utf-8"))
        datetime.fromisoformat(value["at"])
        return dict(value)
    return {}


def _moment(text: str | None) -> datetime | None:
    if not text:
        return None
    at = datetime.fromisoformat(text)
    return at if at.tzinfo else at.replace(tzinfo=UTC)


def _deadline(standing: Standing) -> str:
    hours = standing.hours_left()
    if standing.deadline is None or hours is None:
        return f"not known: {standing.why}"
    at = standing.deadline.astimezone(UTC).strftime("%a %d %b %Y %H:%M UTC")
    return f"in {_span(hours)}, {at}" if hours > 0 else f"passed {_span(-hours)} ago, {at}"


def _advised(standing: Standing) -> str:
    advice = standing.advice
    if advice is None:
        return "kagflow shakeup was not asked"
    age = (now() - advice.at).total_seconds() / 3600
    told = f"{_refs(advice.refs) or 'nothing was submitted'} ({_span(age)} ago)"
    if standing.newer:
        told += f"; {_count(standing.newer)} newer: kagflow shakeup"
    verdict = {None: "", True: ": ticked", False: ": NOT what is ticked"}[standing.agrees]
    return told + verdict


def _unknown(standing: Standing) -> str:
    return f"not known ({standing.why})"


def _count(newer: int) -> str:
    return "1 submission is" if newer == 1 else f"{newer} submissions are"


def _refs(refs: tuple[int, ...]) -> str:
    return " and ".join(map(str, sorted(refs)))


def _span(hours: float) -> str:
    if hours < 1:
        return f"{max(round(hours * 60), 1)} min"
    return f"{hours:.0f} h" if hours < 96 else f"{hours / 24:.0f} days"

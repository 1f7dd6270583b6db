"""Climb the steps of a first contact with Kaggle: each priced, asked about, noted, and continued.

What a step found goes into the profile's answers as soon as it is known; how far it came stands
beside them, so that a killed climb goes on with the dataset, kernel or submission it began.
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from kagflow import durable
from kagflow.errors import KagflowError, NetworkError
from kagflow.progress import QUIET, Progress
from kagflow.ship import assumptions
from kagflow.ship.assumptions import Answer
from kagflow.ship.records import Records
from kagflow.ship.remote import Remote
from kagflow.task.spec import TaskSpec

FILE = "live.json"
Ending = Literal["done", "earlier", "declined", "left out", "failed"]


@dataclass(frozen=True)
class Pace:
    """Say how long things may take, in seconds; the embedded Kaggle is quicker than the real one.

    `ready_s`: until a dataset version is late. `timeout_s`: a GPU probe's time limit, which it
    outlives up to `asleep_s`. `quota_s`: how long a run's cost is waited for. `rerun_s`: how long a
    rerun waits.
    """

    ready_s: float
    timeout_s: int
    asleep_s: float
    quota_s: float
    rerun_s: float


PACES: Mapping[str, Pace] = {
    "kaggle": Pace(ready_s=600, timeout_s=120, asleep_s=240, quota_s=1800, rerun_s=600),
    "local": Pace(ready_s=2.0, timeout_s=2, asleep_s=5.0, quota_s=3.0, rerun_s=4.0),
}


class Notes:
    """Remember per step how far it came; another account starts anew."""

    def __init__(self, state: Path, account: str) -> None:
        self._path = state / FILE
        self._account = account
        self._steps: dict[str, dict[str, Any]] = {}
        try:
            content = json.loads(self._path.read_text())
            if content["account"] == account:
                self._steps = dict(content["steps"])
        except (OSError, ValueError, KeyError, TypeError):
            # Notes are a convenience: without them a step is done again.
            self._steps = {}

    def of(self, step: int) -> Mapping[str, Any]:
        """Return what is noted of a step, empty before it began."""
        return self._steps.get(str(step), {})

    def put(self, step: int, **values: Any) -> Mapping[str, Any]:
        """Note more of a step, durably, and return all of it."""
        made = {**self.of(step), **values}
        self._steps[str(step)] = made
        self._path.parent.mkdir(parents=True, exist_ok=True)
        durable.write_json(self._path, {"account": self._account, "steps": self._steps})
        return made

    def once(self, step: int, name: str, make: Callable[[], Any]) -> Any:
        """Return a step's noted value, making and noting it the first time."""
        if name not in self.of(step):
            self.put(step, **{name: make()})
        return self.of(step)[name]

    def begin(self, step: int) -> str:
        """Return the mark of this try of a step: the one under way, or a new one."""
        if self.of(step).get("ended") or self.of(step).get("failed"):
            self._steps.pop(str(step))
        return str(self.once(step, "nonce", lambda: secrets.token_hex(4)))


@dataclass
class Live:
    """Hold what the steps share; `task` is the competition that step 5 submits to.

    What a step runs on Kaggle goes into the ledger of `records`.
    """

    remote: Remote
    notes: Notes
    records: Records
    task: TaskSpec | None
    machine_shape: str
    progress: Progress = QUIET
    found: list[Answer] = field(default_factory=list)

    @property
    def pace(self) -> Pace:
        """Return how long things may take under this profile."""
        return PACES[self.remote.profile]

    def tell(
        self, name: str, *, value: Any, found: str, believed: bool | None, key: str = ""
    ) -> None:
        """Keep one answer at once: it must outlive a kill. `believed` None leaves it unknown."""
        states: dict[bool | None, assumptions.State] = {True: "verified", False: "contradicted"}
        answer = Answer(
            name,
            states.get(believed, "unknown"),
            value,
            found,
            key=key,
            date=datetime.now(UTC).date().isoformat(),
            account=self.remote.account(),
        )
        assumptions.note(self.remote.state, [answer])
        self.found.append(answer)


@dataclass(frozen=True)
class Step:
    """One rung: what it does and what that costs. `named` ones are left out of a plain --yes."""

    number: int
    title: str
    price: str
    run: Callable[[Live], str]
    named: bool = False


@dataclass(frozen=True)
class Climbed:
    """Say how a step ended, in one line, and what it answered."""

    step: Step
    ending: Ending
    text: str
    answers: tuple[Answer, ...] = ()
    hint: str = ""
    code: int = 0


def climb(
    live: Live,
    steps: tuple[Step, ...],
    *,
    only: int | None = None,
    agreed: Callable[[Step], bool | None],
) -> Iterator[Climbed]:
    """Yield each step as it ended; a refusal by Kaggle ends its step, not the climb.

    `agreed` says yes, no, or None for a step that wants its own word. `only` does that step again.
    """
    for step in steps:
        if only not in {None, step.number}:
            continue
        ended = live.notes.of(step.number).get("ended")
        if ended and only is None:
            yield Climbed(step, "earlier", f"done on {ended}")
            continue
        answer = agreed(step)
        if answer is None:
            hint = f"kagflow doctor --live --step {step.number}"
            yield Climbed(step, "left out", "wants to be asked for", hint=hint)
            continue
        if not answer:
            yield Climbed(step, "declined", "not wanted")
            return
        yield _run(live, step)


def _run(live: Live, step: Step) -> Climbed:
    live.found.clear()
    live.notes.begin(step.number)
    try:
        text = step.run(live)
    except KagflowError as error:
        if not isinstance(error, NetworkError):
            # What Kaggle refused or spoiled is tried anew; what only took long goes on.
            live.notes.put(step.number, failed=True)
        told = tuple(live.found)
        return Climbed(step, "failed", error.message, told, error.hint, error.exit_code)
    live.notes.put(step.number, ended=datetime.now(UTC).date().isoformat())
    return Climbed(step, "done", text, tuple(live.found))

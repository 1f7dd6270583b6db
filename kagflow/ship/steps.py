"""Do what must happen once: noted before and after, and looked for where a try was cut off."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from kagflow.errors import AuthError, RefusedError, RemoteError
from kagflow.ship.records import Records, StepRow

LOOKS = 3  # for what a try that was cut off may have done: it takes a while to show
Result = Mapping[str, Any]


@dataclass(frozen=True)
class Steps:
    """Take the steps of one job; `sleep` waits between two looks."""

    records: Records
    job: str
    sleep: Callable[[float], None]

    def once(self, name: str, effect: Result, do: Callable[[], Result]) -> Result:
        """Return what came of a step that may be done again, doing it where that is not noted."""
        step = self.records.intend(self.job, name, effect)
        if step.result is None:
            step = self.records.done(step, do())
        return step.result or {}

    def effect(
        self,
        name: str,
        effect: Result,
        look: Callable[[str], Result | None],
        send: Callable[[], Result],
    ) -> Result:
        """Return what came of a step that must not happen twice.

        `look` says whether it happened, given since when it may have; only where it did not, `send`
        does it.
        """
        before = self.records.select(StepRow, job=self.job, name=name)
        step = self.records.intend(self.job, name, effect)
        if step.result is not None:
            return step.result
        # A refusal is an answer: nothing happened. A try without an answer may still show.
        cut_off = bool(before) and before[0].state == "intent"
        for number in range(LOOKS if cut_off else 1):
            if number:
                self.sleep(2.0**number)
            found = look(step.intent_at)
            if found is not None:
                return self.records.done(step, found).result or {}
        return self.records.done(step, self._send(step, send)).result or {}

    def _send(self, step: StepRow, send: Callable[[], Result]) -> Result:
        self.records.update(StepRow, step.id, state="intent")
        try:
            return send()
        except (RemoteError, AuthError, RefusedError):
            self.records.update(StepRow, step.id, state="refused")
            raise

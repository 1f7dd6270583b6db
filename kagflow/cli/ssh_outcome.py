"""What came of a training on a host, from what it wrote and what was brought back."""

from __future__ import annotations

import json
import signal
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from kagflow.cli.executors import Order
from kagflow.cli.jobs import Job
from kagflow.cli.session import INTERRUPTED
from kagflow.cli.sweep import Failure, Outcome
from kagflow.errors import RemoteError
from kagflow.ship.cause import cause

LAST_LINES = 10


@dataclass(frozen=True)
class Told:
    """What a host says of a job that ended: exit status, stdout of its commands, last lines."""

    host: str = ""
    code: int | None = 0
    late: bool = False
    texts: tuple[str, ...] = ()
    tail: tuple[str, ...] = ()


def outcome(order: Order, told: Told, planned: Sequence[Job] | None = None) -> Outcome:
    """Return what is finished here, what stopped in time, what failed and why.

    Raises RemoteError where the only job failed.
    """
    from kagflow.learn.outcome import result

    planned = order.planned if planned is None else planned
    said = list(_said(told.texts))
    found = Outcome()
    for job in planned:
        if (job.folder / "run.json").is_file():
            summary = result(job.folder).summary()
            found.add({"run": job.run, "fold": job.fold, **summary})
        elif paused := _of(job, said, "remaining"):
            if paused["remaining"] is None:
                found.left.append(job)
            else:
                found.add({**paused, "finished": False})
        elif told.late or told.code == INTERRUPTED:
            found.left.append(job)
        else:
            found.failed.append(_failure(job, told, said))
    if len(planned) == 1 and found.failed:
        raise RemoteError(found.failed[0].error, hint=found.failed[0].hint)
    return found


def _said(texts: Sequence[str]) -> Iterator[Mapping[str, Any]]:
    for text in texts:
        for line in text.splitlines():
            try:
                value = json.loads(line)
            except ValueError:
                continue
            if isinstance(value, dict):
                yield value


def _of(job: Job, said: Sequence[Mapping[str, Any]], key: str) -> dict[str, Any] | None:
    for value in said:
        for one in value.get(key, ()):
            if (one["run"], str(one["fold"])) == (job.run, str(job.fold)):
                return dict(one)
    return None


def _failure(job: Job, told: Told, said: Sequence[Mapping[str, Any]]) -> Failure:
    """Say why a job failed: in its own words, else in those of the log's last telling line."""
    own = _of(job, said, "failed") or next((dict(one) for one in said if "error" in one), None)
    hint = "the same command goes on from the last checkpoint"
    if own is not None:
        return Failure(job, f"on {told.host}: {own['error']}", own["hint"] or hint, 4)
    how = _ended(told.code)
    likely = cause("", told.tail)
    why = f"; likely {likely.name}: {likely.line}" if likely else ""
    last = "".join(f"\n  {line}" for line in told.tail[-LAST_LINES:])
    return Failure(job, f"{job.label} on {told.host} {how}{why}{last}", hint, 4)


def _ended(code: int | None) -> str:
    if code is None:
        return "ended without a word: the host may have restarted"
    if code == -signal.SIGKILL:
        return "was killed: memory may have run out"
    return f"was ended by {signal.Signals(-code).name}" if code < 0 else f"ended with {code}"

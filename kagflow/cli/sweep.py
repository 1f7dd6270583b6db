"""Do many jobs, one after another or beside: past failures, up to a Ctrl-C or a budget's end."""

from __future__ import annotations

import threading
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

from kagflow.cli.jobs import Job
from kagflow.errors import KagflowError

BUG = 1
# How often the waiting main thread looks up, so that a signal's handler runs.
LOOK = 0.2

S = TypeVar("S")


@dataclass(frozen=True)
class Failure:
    """Say why a job failed; `trace` is set where the error was none of kagflow's own."""

    job: Job
    error: str
    hint: str
    exit_code: int
    trace: str = ""


@dataclass
class Outcome:
    """What came of the jobs: `begun` ones stopped in time, `left` were not begun."""

    finished: list[dict[str, Any]] = field(default_factory=list)
    begun: list[dict[str, Any]] = field(default_factory=list)
    failed: list[Failure] = field(default_factory=list)
    left: list[Job] = field(default_factory=list)
    interrupted: bool = False

    def add(self, result: dict[str, Any]) -> None:
        """Count a job that ended without an error."""
        (self.finished if result["finished"] else self.begun).append(result)

    @property
    def status(self) -> str:
        """One word for all: finished, failed or stopped."""
        if self.failed:
            return "failed"
        return "stopped" if self.interrupted or self.begun or self.left else "finished"


def run(
    jobs: Sequence[Job],
    train: Callable[[Job], dict[str, Any]],
    *,
    spent: Callable[[], bool] = lambda: False,
) -> Outcome:
    """Train each job; a failure is noted and the next one begun, unless it is the only one.

    `spent` is asked before each job. A lone job's error is raised as it is.
    """
    outcome = Outcome()
    for at, job in enumerate(jobs):
        if spent():
            outcome.left = list(jobs[at:])
            break
        try:
            outcome.add(train(job))
        except KeyboardInterrupt:
            outcome.interrupted, outcome.left = True, list(jobs[at:])
            break
        except Exception as error:
            if len(jobs) == 1:
                raise
            outcome.failed.append(failure(job, error))
    return outcome


def run_beside(
    jobs: Sequence[Job],
    train: Callable[[Job, S], dict[str, Any]],
    slots: Sequence[S],
    *,
    spent: Callable[[], bool] = lambda: False,
) -> Outcome:
    """Do as `run`, with one job on each slot at a time, each slot in a thread of its own."""
    work = _Queue(jobs, train, spent)
    threads = [threading.Thread(target=work.drain, args=(slot,), daemon=True) for slot in slots]
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads):
        for thread in threads:
            thread.join(LOOK)
    return work.outcome()


class _Queue:
    """Jobs that several threads take, and what came of each."""

    def __init__(
        self,
        jobs: Sequence[Job],
        train: Callable[[Job, Any], dict[str, Any]],
        spent: Callable[[], bool],
    ) -> None:
        self._jobs, self._train, self._spent = jobs, train, spent
        self._next, self._interrupted = 0, False
        self._came: dict[int, dict[str, Any] | Failure] = {}
        self._lock = threading.Lock()

    def drain(self, slot: object) -> None:
        """Do jobs until none is left, or none may be begun any more."""
        while (at := self._take()) is not None:
            job = self._jobs[at]
            try:
                self._came[at] = self._train(job, slot)
            except KeyboardInterrupt:
                self._interrupted = True
            except Exception as error:  # noqa: BLE001 - it is told at the end
                self._came[at] = failure(job, error)

    def outcome(self) -> Outcome:
        """Return what came of all, in the order of the jobs."""
        found = Outcome(interrupted=self._interrupted)
        for at, job in enumerate(self._jobs):
            came = self._came.get(at)
            if came is None:
                found.left.append(job)
            elif isinstance(came, Failure):
                found.failed.append(came)
            else:
                found.add(came)
        return found

    def _take(self) -> int | None:
        with self._lock:
            if self._next == len(self._jobs) or self._interrupted or self._spent():
                return None
            self._next += 1
            return self._next - 1


def failure(job: Job, error: Exception) -> Failure:
    """Describe an error; one of a plug-in's own is named with the line that raised it."""
    if isinstance(error, KagflowError):
        return Failure(job, error.message, error.hint, error.exit_code)
    frames = traceback.extract_tb(error.__traceback__)
    # A plug-in's own line says more than the library's that it called.
    last = [one for one in frames if "site-packages" not in one.filename][-1]
    where = f"{last.filename}:{last.lineno}"
    text = "".join(traceback.format_exception(error))
    message = f"{type(error).__name__}: {error} ({where})"
    return Failure(job, message, "train this run alone for the traceback", BUG, text)

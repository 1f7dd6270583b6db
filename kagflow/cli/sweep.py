"""Do many jobs one after another: past failures, up to a Ctrl-C or the end of the budget."""

from __future__ import annotations

import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from kagflow.cli.jobs import Job
from kagflow.errors import KagflowError

BUG = 1


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

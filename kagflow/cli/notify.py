"""Run the user's own command when a long one has ended, whatever came of it."""

from __future__ import annotations

import contextlib
import os
import shlex
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from kagflow import durable, process
from kagflow.cli.competitions import Known
from kagflow.cli.session import Session
from kagflow.errors import KagflowError, LocalError, UsageError

# A notice that hangs must not hold the machine.
PATIENCE = 300.0
RESULT = "last-train.json"


@dataclass
class Done:
    """What to tell: the command's result and finished, failed or stopped."""

    value: dict[str, Any] = field(default_factory=dict)
    status: str = "failed"


@contextlib.contextmanager
def on_done(session: Session, known: Known, command: str | None) -> Iterator[Done]:
    """Run `command` at the end, without a shell; its failure is a warning.

    It finds KAGFLOW_STATUS (finished, failed or stopped) and KAGFLOW_RESULT, the path of a JSON
    file that says what --json says. Raises UsageError at once where there is no such program.
    """
    argv = _checked(command) if command else []
    done = Done()
    try:
        yield done
    except KeyboardInterrupt:
        done.status = "stopped"
        raise
    except KagflowError as error:
        done.value = {"error": error.message, "hint": error.hint, "exit_code": error.exit_code}
        raise
    except Exception as error:
        done.value = {"error": f"{type(error).__name__}: {error}", "exit_code": 1}
        raise
    finally:
        if argv:
            _run(session, known, argv, done)


def _checked(command: str) -> list[str]:
    try:
        argv = shlex.split(command)
    except ValueError as error:
        raise UsageError(f"on_done={command}: {error}", hint="quote it as for a shell") from None
    if not argv or shutil.which(argv[0]) is None:
        raise UsageError(f"on_done={command}: no such program here", hint="give its path")
    return argv


def _run(session: Session, known: Known, argv: list[str], done: Done) -> None:
    file = session.workspace.runs(known.name) / RESULT
    told = {"KAGFLOW_STATUS": done.status, "KAGFLOW_RESULT": str(file)}
    try:
        durable.write_json(file, {"status": done.status, **done.value})
        ended = process.run(argv, env=os.environ | told, timeout=PATIENCE)
        session.out.say(f"on_done: {argv[0]} ran {ended.seconds:.1f} s")
    except (LocalError, OSError) as error:
        session.out.warn(f"on_done: {error}")

"""What every command shares: output, workspace, profile, and the one error boundary."""

from __future__ import annotations

import functools
import os
import sys
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ParamSpec

import typer

from kagflow import workspace
from kagflow.errors import KagflowError, UsageError
from kagflow.output import Output
from kagflow.redaction import hide, redact
from kagflow.ship import credentials

P = ParamSpec("P")
SHARED = "Before or after any command: --json  --quiet  --debug  --profile kaggle|local"
INTERRUPTED = 130
DEFAULT_PROFILE = "kaggle"


@dataclass(frozen=True)
class Settings:
    """The options that work before and after every command."""

    json_mode: bool = False
    quiet: bool = False
    debug: bool = False
    profile: str | None = None


@dataclass(frozen=True)
class Session:
    """One invocation: how to talk, and where everything lies."""

    out: Output
    workspace: workspace.Workspace

    @property
    def local(self) -> bool:
        """Whether the embedded Kaggle stands in."""
        return self.workspace.profile == "local"

    def command(self, words: str) -> str:
        """Return a command as it must be typed here: with the profile, unless it is the default."""
        default = os.environ.get("KAGFLOW_PROFILE") or DEFAULT_PROFILE
        profile = self.workspace.profile
        return f"kagflow {words}" + ("" if profile == default else f" --profile {profile}")


def take_shared(argv: Sequence[str]) -> tuple[Settings, list[str]]:
    """Split the shared options, wherever they stand, from a command line's other words."""
    flags = {"--json": False, "--quiet": False, "--debug": False}
    profile: str | None = os.environ.get("KAGFLOW_PROFILE") or None
    rest: list[str] = []
    words = iter(argv)
    for word in words:
        if word in flags:
            flags[word] = True
        elif word == "--profile":
            profile = next(words, "")
        elif word.startswith("--profile="):
            profile = word.partition("=")[2]
        else:
            rest.append(word)
    settings = Settings(flags["--json"], flags["--quiet"], flags["--debug"], profile)
    return settings, rest


def open_session(context: typer.Context) -> Session:
    """Return the session that the shared options describe."""
    settings = context.obj if isinstance(context.obj, Settings) else Settings()
    out = Output(json_mode=settings.json_mode, quiet=settings.quiet)
    profile = settings.profile if settings.profile is not None else DEFAULT_PROFILE
    return Session(out, workspace.find(Path.cwd(), profile))


def guarded(command: Callable[P, None]) -> Callable[P, None]:
    """Turn every KagflowError into one message and its exit code; bugs keep their traceback."""

    @functools.wraps(command)
    def inner(*args: P.args, **kwargs: P.kwargs) -> None:
        # typer calls with keywords; its context is of a class that it does not export.
        given = getattr(kwargs["context"], "obj", None)
        settings = given if isinstance(given, Settings) else Settings()
        out = Output(json_mode=settings.json_mode, quiet=settings.quiet)
        _hide_credentials()
        try:
            command(*args, **kwargs)
        except KagflowError as error:
            if settings.debug:
                sys.stderr.write(redact(traceback.format_exc()))
            out.error(error)
            raise typer.Exit(error.exit_code) from None
        except KeyboardInterrupt:
            out.warn("interrupted; nothing is lost, the same command continues")
            raise typer.Exit(INTERRUPTED) from None
        except Exception:
            trace = traceback.format_exc()
            if redact(trace) == trace:
                raise
            sys.stderr.write(redact(trace))
            raise typer.Exit(1) from None

    return inner


def _hide_credentials() -> None:
    for credential in credentials.live():
        hide(credential.secret, credential.username)


def sole(words: Sequence[str], what: str) -> str | None:
    """Return the only word, None for no word.

    Raises UsageError for more than one.
    """
    if len(words) > 1:
        raise UsageError(f"one {what} at a time, not {len(words)}: {' '.join(words)}")
    return words[0] if words else None

"""Send folders that are named by their content: only what the host lacks, verified there."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from kagflow import durable
from kagflow.errors import DataError, LocalError, NetworkError
from kagflow.ship.ssh import Link

# What is lost with a connection is tried again for as long; then the user is told how to go on.
PATIENCE = 600.0
FIRST_PAUSE, LONGEST_PAUSE = 0.5, 30.0
TRIES = 3
# The disk must not be filled to the brim by what is sent.
ROOM = 1.2

Files = Mapping[str, tuple[int, str]]
T = TypeVar("T")


def listed(folder: Path) -> dict[str, tuple[int, str]]:
    """Return {name: (bytes, sha256)} of all files of a folder."""
    files = (path for path in sorted(folder.rglob("*")) if path.is_file())
    return {
        path.relative_to(folder).as_posix(): (path.stat().st_size, durable.sha256_file(path))
        for path in files
    }


def send(link: Link, folder: str, root: Path, files: Files, *, what: str) -> str:
    """Make `folder` below the host's kagflow folder hold `files` of `root`; return its path.

    Files that lie there already, under this name or another, are not sent. Raises LocalError where
    the host's disk is too small, DataError where files keep arriving changed.
    """
    path = f"{link.home}/{folder}"
    wrong: list[str] = []
    for _ in range(TRIES):
        lack = ask(link, "lacking", folder=folder, files=dict(files))
        if lack["there"]:
            return path
        try:
            _transfer(link, root, files, lack, what=what)
        except DataError:
            # Another command may have sent the same, and have given it its name meanwhile.
            if ask(link, "exists", name=folder)["there"]:
                return path
            raise
        wrong = ask(link, "settle", folder=folder, files=dict(files))["wrong"]
        if not wrong:
            return path
    raise DataError(
        f"{len(wrong)} files of {what} keep arriving changed on {link.host}, the first: {wrong[0]}",
        hint="a file that changes meanwhile, or a bad disk: run the same again",
    )


def ask(link: Link, do: str, **given: Any) -> dict[str, Any]:
    """Have the host do one thing that may be done twice, in its kagflow folder."""
    return patiently(link, partial(link.call, do, home=link.home, **given))


def patiently(link: Link, act: Callable[[], T], *, patience: float | None = None) -> T:
    """Do what may be done twice; where the connection breaks, try again for PATIENCE seconds.

    Raises the last NetworkError after that; every other error at once.
    """
    until = time.monotonic() + (PATIENCE if patience is None else patience)
    pause = FIRST_PAUSE
    while True:
        try:
            return act()
        except NetworkError as error:
            if time.monotonic() + pause > until:
                raise
            link.progress.note(f"{error.message}; trying again")
        link.drop()
        time.sleep(pause)
        pause = min(2 * pause, LONGEST_PAUSE)


def _transfer(link: Link, root: Path, files: Files, lack: Mapping[str, Any], *, what: str) -> None:
    names = list(lack["names"])
    size, free = sum(files[name][0] for name in names), float(lack["free"])
    if size * ROOM > free:
        raise LocalError(
            f"{what} needs {size / 1e9:.1f} GB on {link.host}, {free / 1e9:.1f} GB are free",
            hint="free some space there, or KAGFLOW_SSH_HOME=/a/folder/on/a/larger/disk",
        )
    if names:
        link.progress.start(f"send {what}", float(size), "B")
        patiently(link, partial(link.push, root, names, str(lack["staging"])))
        link.progress.finish()

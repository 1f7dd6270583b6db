"""Bring runs back from a host: every file as the host hashed it, never over a finished run."""

from __future__ import annotations

import re
import shutil
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import filelock

from kagflow import durable
from kagflow.errors import DataError, RefusedError
from kagflow.ship.ssh import Link
from kagflow.ship.ssh_send import Files, ask, patiently

FINISHED = "run.json"
TRIES = 2


def bring(link: Link, folder: str, name: str, final: Path) -> bool:
    """Bring a run's folder `name` below `folder` of the host's kagflow folder to `final`.

    Tell whether anything was brought: not where the host has nothing of it, or what is here is
    finished or further. Raises DataError for a file that keeps arriving changed, RefusedError
    where the run is being trained here; what was here before stays then.
    """
    _recover(final)
    if (final / FINISHED).is_file():
        return False
    told = ask(link, "sums", folder=f"{folder}/{name}")
    files: dict[str, tuple[int, str]] = {
        one: (int(size), str(digest)) for one, (size, digest) in told["files"].items()
    }
    if not files or (FINISHED not in files and _steps(files) <= _steps_here(final)):
        return False
    staging = final.parent / f".{final.name}.arriving"
    final.parent.mkdir(parents=True, exist_ok=True)
    _arrive(link, told["root"], files, staging)
    _swap(staging, final)
    return True


def _arrive(link: Link, root: str, files: Files, staging: Path) -> None:
    """Fill the staging folder with exactly these files, each of them verified."""
    staging.mkdir(exist_ok=True)
    wrong = [name for name in files if not _same(_inside(staging, name), files[name])]
    for _ in range(TRIES):
        if not wrong:
            break
        names = wrong
        link.progress.start(
            f"bring {staging.parent.name}", sum(files[one][0] for one in names), "B"
        )
        patiently(link, partial(link.pull, root, names, staging))
        link.progress.finish()
        wrong = [name for name in names if not _same(staging / name, files[name])]
        for name in wrong:
            # Whatever is left of it must not serve as a start.
            (staging / name).unlink(missing_ok=True)
    if wrong:
        raise DataError(
            f"{len(wrong)} files arrive from {link.host} other than they are there, the first: "
            f"{wrong[0]}",
            hint="nothing here was changed; the same command with --attach tries again",
        )
    for path in list(staging.rglob("*")):
        if path.is_file() and path.relative_to(staging).as_posix() not in files:
            path.unlink()


def _swap(staging: Path, final: Path) -> None:
    """Give what arrived its name; what it replaces goes last of all."""
    final.mkdir(parents=True, exist_ok=True)
    lock = filelock.FileLock(final / ".lock")
    try:
        lock.acquire(timeout=0)
    except filelock.Timeout:
        raise RefusedError(
            f"another kagflow is training {final}",
            hint="stop it with Ctrl-C, then the same command with --attach",
        ) from None
    old = _old(final)
    try:
        if (final / FINISHED).is_file():
            return
        durable.fsync_tree(staging)
        final.rename(old)
        staging.rename(final)
        durable.fsync_dir(final.parent)
    finally:
        lock.release()
    shutil.rmtree(old, ignore_errors=True)


def _recover(final: Path) -> None:
    """Put back what a kill left between two renames."""
    old = _old(final)
    if old.is_dir() and not final.exists():
        old.rename(final)
    shutil.rmtree(old, ignore_errors=True)


def _old(final: Path) -> Path:
    return final.parent / f".{final.name}.before"


def _inside(staging: Path, name: str) -> Path:
    """Return a path of the staging folder; what a host names is not trusted to stay in it."""
    if Path(name).is_absolute() or ".." in Path(name).parts:
        raise DataError(f"the host names a file '{name}', which leads out of the run's folder")
    return staging / name


def _same(path: Path, facts: tuple[int, str]) -> bool:
    try:
        return path.stat().st_size == facts[0] and durable.sha256_file(path) == facts[1]
    except OSError:
        return False


def _steps(names: Sequence[str] | Files) -> int:
    found = (re.fullmatch(r"ckpt-(\d+)\.pt", name) for name in names)
    return max((int(one[1]) for one in found if one), default=-1)


def _steps_here(final: Path) -> int:
    return _steps([path.name for path in final.glob("ckpt-*.pt")]) if final.is_dir() else -2

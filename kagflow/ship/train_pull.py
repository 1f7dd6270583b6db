"""Bring back what a training session left: verified by hash, each run whole or not at all."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kagflow import durable
from kagflow.errors import DataError
from kagflow.progress import QUIET, Progress
from kagflow.ship.claim import claim
from kagflow.ship.load import checkpoint_step
from kagflow.ship.remote import Remote

MANIFEST = "kagflow-session.json"
RUNS = "runs"


@dataclass(frozen=True)
class Left:
    """Say what a session left in `folder`: files with their hashes, and each job's state."""

    folder: Path
    token: str
    files: Mapping[str, Mapping[str, Any]]
    jobs: Mapping[str, Mapping[str, Any]]

    @property
    def progress(self) -> list[int]:
        """How far the jobs are: finished ones, then the sum of the others' steps."""
        finished = sum(bool(job["finished"]) for job in self.jobs.values())
        steps = [checkpoint_step(self.folder / RUNS / run) for run in self.jobs]
        return [finished, sum(one + 1 for one in steps)]


def download(
    remote: Remote, ref: str, version: int, token: str, dest: Path, *, progress: Progress = QUIET
) -> Left:
    """Download a session's output into `dest` and check every file of its manifest.

    Raises DataError where it has no manifest, another session's, or a file that is not as it was
    left.
    """
    remote.kernel_outputs(ref, version, dest, progress=progress)
    again = "run the same command again; if it stays so, look at the kernel's page"
    try:
        told = json.loads((dest / MANIFEST).read_text())
        left = Left(dest, str(told["token"]), dict(told["files"]), dict(told["jobs"]))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(f"kernel {ref} version {version} left no {MANIFEST}: {error!r}") from None
    if left.token != token:
        raise DataError(f"kernel {ref} version {version} is session {left.token}, not {token}")
    for name, facts in left.files.items():
        path = _inside(dest, name)
        if not path.is_file() or durable.sha256_file(path) != facts["sha256"]:
            # What is damaged must not be taken for what was downloaded before.
            path.unlink(missing_ok=True)
            raise DataError(
                f"{name} of kernel {ref} version {version} is not as it was left", hint=again
            )
    return left


def place(left: Left, runs: Path) -> list[str]:
    """Put each run where it belongs and return those that changed.

    A finished run is never touched, an unfinished one only replaced by one that is further.
    """
    changed = []
    for run in left.jobs:
        source, target = left.folder / RUNS / run, runs / run
        if not source.is_dir():
            continue
        with claim(target, "is working in"):
            _mend(target)
            if _further(source, target):
                _replace(source, target)
                changed.append(run)
    return changed


def _further(source: Path, target: Path) -> bool:
    if (target / "run.json").is_file():
        return False
    if (source / "run.json").is_file():
        return True
    return checkpoint_step(source) > checkpoint_step(target)


def _replace(source: Path, target: Path) -> None:
    """Copy beside, then rename; at a kill either the old run or the new one is there."""
    made, old = _beside(target)
    with durable.staging(made) as folder:
        shutil.copytree(source, folder, dirs_exist_ok=True)
    if target.exists():
        target.rename(old)
    made.rename(target)
    durable.fsync_dir(target.parent)
    shutil.rmtree(old, ignore_errors=True)


def _mend(target: Path) -> None:
    """Take away what a kill left between two names."""
    made, old = _beside(target)
    if old.exists() and not target.exists():
        old.rename(target)
    for stale in (made, old, *target.parent.glob(f".{made.name}.*.staging")):
        shutil.rmtree(stale, ignore_errors=True)


def _beside(target: Path) -> tuple[Path, Path]:
    return target.parent / f".{target.name}.new", target.parent / f".{target.name}.old"


def _inside(root: Path, name: str) -> Path:
    parts = Path(name).parts
    if not parts or Path(name).is_absolute() or ".." in parts:
        raise DataError(f"an output is named '{name}'")
    return root.joinpath(*parts)

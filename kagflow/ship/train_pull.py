"""Bring back what a training session left: verified by hash, each run whole or not at all."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
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
# What a session left may take so long to be listed and served whole.
AGAIN_S = 30.0


@dataclass(frozen=True)
class Left:
    """Say what a session left in `folder`: files with their hashes, and each job's state.

    `damaged` are the files that did not arrive as they were left.
    """

    folder: Path
    token: str
    files: Mapping[str, Mapping[str, Any]]
    jobs: Mapping[str, Mapping[str, Any]]
    damaged: tuple[str, ...] = ()

    @property
    def progress(self) -> list[int]:
        """How far the jobs are: finished ones, then the sum of the others' steps."""
        finished = sum(bool(job["finished"]) for job in self.jobs.values())
        steps = [checkpoint_step(self.folder / RUNS / run) for run in self.jobs]
        return [finished, sum(one + 1 for one in steps)]

    @property
    def intact(self) -> list[str]:
        """The runs that arrived as they were left."""
        return [run for run in self.jobs if not any(self._of(run, one) for one in self.damaged)]

    def _of(self, run: str, name: str) -> bool:
        return Path(name).is_relative_to(Path(RUNS) / run)


def bring(  # noqa: PLR0913 - whose output, and where each part of it goes
    remote: Remote,
    ref: str,
    version: int,
    token: str,
    folder: Path,
    runs: Path,
    *,
    progress: Progress = QUIET,
) -> dict[str, Any]:
    """Download a session's output into `folder`, put its runs into `runs`, and say what it left.

    One that arrives damaged is downloaded once more, and then is `lost`, in these words: what of it
    is whole is put into `runs` all the same, and those that are finished are `kept`. Raises
    NetworkError where it cannot be downloaded now.
    """

    def once() -> tuple[Left | None, str]:
        try:
            left = download(remote, ref, version, token, folder, progress=progress)
        except DataError as error:
            return None, error.message
        if not left.damaged:
            return left, ""
        more = f" and {len(left.damaged) - 1} more files" if left.damaged[1:] else ""
        what = f"{left.damaged[0]}{more} of kernel {ref} version {version}"
        return left, f"{what} did not arrive as left"

    left, wrong = once()
    if wrong:
        progress.note(f"{wrong}; downloading it once more")
        remote.transport.sleep(AGAIN_S)
        left, wrong = once()
    if left is None:
        return {"lost": wrong, "kept": []}
    place(left, runs)
    if wrong:
        return {"lost": wrong, "kept": [one for one in left.intact if left.jobs[one]["finished"]]}
    return {"jobs": dict(left.jobs), "progress": left.progress}


def download(
    remote: Remote, ref: str, version: int, token: str, dest: Path, *, progress: Progress = QUIET
) -> Left:
    """Download a session's output into `dest` and check every file of its manifest.

    Raises DataError where it has no manifest or another session's.
    """
    remote.kernel_outputs(ref, version, dest, progress=progress)
    try:
        told = json.loads((dest / MANIFEST).read_text())
        left = Left(dest, str(told["token"]), dict(told["files"]), dict(told["jobs"]))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(f"kernel {ref} version {version} left no {MANIFEST}: {error!r}") from None
    if left.token != token:
        raise DataError(f"kernel {ref} version {version} is session {left.token}, not {token}")
    return replace(left, damaged=tuple(_damaged(left)))


def place(left: Left, runs: Path) -> list[str]:
    """Put each intact run where it belongs and return those that changed.

    A finished run is never touched, an unfinished one only replaced by one that is further.
    """
    changed = []
    for run in left.intact:
        source, target = left.folder / RUNS / run, runs / run
        if not source.is_dir():
            continue
        with claim(target, "is working in"):
            _mend(target)
            if _further(source, target):
                _replace(source, target)
                changed.append(run)
    return changed


def _damaged(left: Left) -> Iterator[str]:
    for name, facts in left.files.items():
        path = _inside(left.folder, name)
        if not path.is_file() or durable.sha256_file(path) != facts["sha256"]:
            # What is damaged must not be taken for what was downloaded before.
            path.unlink(missing_ok=True)
            yield name


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

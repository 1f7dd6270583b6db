"""Copies of runs on a storage that outlives the machine, each believed only when read back.

A hosted machine's own disk goes with its session, and a mounted storage has been seen to lose what
it said was written. So every file is copied beside, flushed, read again and hashed before it
counts. `mirror.json` in each fold's folder lists what counts; it is written before a file takes its
place, with the hash before and the one to come: a kill at any point leaves listed files whole.
"""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from kagflow import durable
from kagflow.errors import DataError, LocalError
from kagflow.learn.shelf import MANIFEST, Shelf, Torn

CONFIG, FINISHED = "config.yaml", "run.json"
KEPT = 2

Say = Callable[[str], None]


@dataclass
class Report:
    """What one pass did: `copied` and `damaged` are paths below the runs, `folds` their folders."""

    copied: list[str] = field(default_factory=list)
    damaged: list[str] = field(default_factory=list)

    @property
    def folds(self) -> list[str]:
        """Folds of which something was copied."""
        return sorted({name.rpartition("/")[0] for name in self.copied})


def save(runs: Path, storage: Path) -> Report:
    """Copy to `storage` what is new in `runs`; of checkpoints the newest two stay there.

    Raises DataError where the storage gives back other bytes than were written, and LocalError
    where it takes none.
    """
    report = Report()
    for folder in _folds(runs, CONFIG):
        name = folder.relative_to(runs)
        try:
            copied = _save_fold(folder, Shelf(storage / name))
        except OSError as error:
            what = f"cannot copy {folder} to {storage / name}: {error.strerror or error}"
            raise LocalError(what, hint="free space on the storage, or mount it again") from error
        report.copied += [f"{name}/{file}" for file in copied]
    return report


def restore(storage: Path, runs: Path) -> Report:
    """Bring back what `storage` holds and `runs` lacks, every hash checked on the way.

    A damaged file is left out: without its newest checkpoint a run goes on from the one before, and
    it counts as finished only where all of it verifies.
    """
    report = Report()
    for place in _folds(storage, MANIFEST):
        name = place.relative_to(storage)
        folder, shelf = runs / name, Shelf(place)
        if (folder / FINISHED).is_file() or _newest(folder) > _newest(place):
            continue
        report.damaged += [] if shelf.legible else [f"{name}/{MANIFEST}"]
        for file in sorted(shelf.files, key=_rank):
            if file == FINISHED and any(one.startswith(f"{name}/") for one in report.damaged):
                continue
            if (folder / file).is_file() and shelf.says(file, durable.sha256_file(folder / file)):
                continue
            try:
                shelf.take(file, folder / file)
                report.copied.append(f"{name}/{file}")
            except (Torn, OSError):
                report.damaged.append(f"{name}/{file}")
    return report


def verify(storage: Path) -> Report:
    """Read every listed file of the storage again; `damaged` names those that are not whole."""
    report = Report()
    for place in _folds(storage, MANIFEST):
        shelf, name = Shelf(place), place.relative_to(storage)
        report.damaged += [f"{name}/{file}" for file in shelf.files if not shelf.whole(file)]
    return report


@contextmanager
def kept(runs: Path, storage: Path, *, every: float = 60.0, say: Say = print) -> Iterator[None]:
    """Save every so many seconds while the block runs, and once more at its end.

    What goes wrong on the way is said and tried again; what goes wrong at the end is raised.
    """
    over = threading.Event()

    def rounds() -> None:
        while not over.wait(every):
            try:
                _tell(save(runs, storage), say)
            except (DataError, LocalError) as error:
                say(f"not copied: {error.message}; {error.hint}")

    thread = threading.Thread(target=rounds, daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
        _tell(save(runs, storage), say)


def _tell(report: Report, say: Say) -> None:
    if report.copied:
        say(f"copied and read back: {len(report.copied)} files of {', '.join(report.folds)}")


def _folds(root: Path, sign: str) -> list[Path]:
    return sorted(file.parent for file in root.glob(f"*/*/*/{sign}"))


def _save_fold(folder: Path, shelf: Shelf) -> list[str]:
    copied = []
    shelf.tidy()
    for file in sorted(_files(folder), key=_rank):
        if _rank(file)[0] == 2 and not _has_weights(file, shelf):
            continue
        # A checkpoint may be dropped for a newer one, or replaced, while it is read.
        with suppress(FileNotFoundError, Torn):
            if shelf.put(file, folder / file, sidecar=_sidecar(folder / file)):
                copied.append(file)
    if copied:
        _prune(folder, shelf)
    return copied


def _files(folder: Path) -> list[str]:
    """Return a fold's files; not its lock, nor what is being written."""
    found = []
    for inner, folders, names in os.walk(folder):
        folders[:] = [one for one in folders if not one.startswith(".")]
        found += [Path(inner, name) for name in names if not name.startswith(".")]
    whole = (
        path for path in found if not _weights(path.name) or path.with_suffix(".json").is_file()
    )
    return [path.relative_to(folder).as_posix() for path in whole]


def _weights(name: str) -> bool:
    """Tell a checkpoint or an epoch's weights, which have a sidecar with their hash."""
    return name.startswith(("ckpt-", "epoch-")) and not name.endswith(".json")


def _has_weights(sidecar: str, shelf: Shelf) -> bool:
    return any(
        sidecar.removesuffix(".json") + end in shelf.files for end in (".pt", ".safetensors")
    )


def _sidecar(path: Path) -> str | None:
    """Return the hash that a checkpoint's sidecar tells, None for a file without one.

    Raises FileNotFoundError where the sidecar has just gone.
    """
    if not _weights(path.name):
        return None
    return str(json.loads(path.with_suffix(".json").read_text())["sha256"])


def _rank(name: str) -> tuple[int, str]:
    """Sort key: what a run needs to go on, then weights, then their sidecars, run.json last."""
    base = name.rpartition("/")[2]
    marks = base.startswith(("ckpt-", "epoch-"))
    if name == FINISHED:
        return 3, name
    return (1 if _weights(base) else 2) if marks else 0, name


def _prune(folder: Path, shelf: Shelf) -> None:
    """Drop checkpoints older than the newest two, and epochs' weights that the run dropped."""
    steps = sorted((_step(name) for name in shelf.files if _is_sidecar(name)), reverse=True)
    old = [f"ckpt-{step}" for step in steps[KEPT:]]
    gone = [
        name.rpartition(".")[0]
        for name in shelf.files
        if name.startswith("epoch-") and not (folder / name).is_file()
    ]
    for name in sorted(shelf.files, key=_rank, reverse=True):
        if name.rpartition(".")[0] in {*old, *gone}:
            shelf.drop(name)


def _newest(folder: Path) -> int:
    """Return the step of the newest checkpoint in a folder, -1 without any."""
    return max((_step(file.name) for file in folder.glob("ckpt-*.json")), default=-1)


def _is_sidecar(name: str) -> bool:
    return name.startswith("ckpt-") and name.endswith(".json")


def _step(name: str) -> int:
    return int(name.removeprefix("ckpt-").removesuffix(".json"))

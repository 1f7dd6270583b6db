"""Forget what happened on the embedded Kaggle, or one of its competitions; whole after a kill."""

from __future__ import annotations

import contextlib
import json
import shutil
from pathlib import Path

from filelock import FileLock

from kagflow import durable
from kagflow.errors import UsageError
from kagflow.rehearse import finals, server
from kagflow.rehearse.store import Store

# A reset under way: what it says is done again from the start, by whoever opens the store next.
MARK = "resetting.json"
TABLES = (
    "final",
    "submission",
    "session",
    "kernel_version",
    "kernel",
    "dataset_version",
    "dataset",
    "blob",
)
FOLDERS = ("sessions", "datasets", "blobs")


def reset(store_dir: Path, slug: str | None = None) -> bool:
    """Forget kernels, datasets, submissions and quota; with a slug, that competition instead.

    Ends a running server first, for its kernels would go on; returns whether one ran. Numbers are
    not given again. Raises UsageError for a competition that is not there.
    """
    store = Store(store_dir)
    if slug is not None and not store.has_competition(slug):
        there = ", ".join(facts.slug for facts in store.competitions()) or "none"
        raise UsageError(f"the embedded Kaggle has no '{slug}'", hint=f"there are: {there}")
    # Nobody may start a server in between.
    with FileLock(store.path / server.LOCK, timeout=server.START_SECONDS):
        stopped = server.stop(store_dir)
        durable.write_json(store.path / MARK, {"competition": slug})
        finish(store)
    return stopped


def finish(store: Store) -> None:
    """Go on with a reset that was cut off, from its start; nothing happens without one."""
    mark = store.path / MARK
    if not mark.exists():
        return
    slug = json.loads(mark.read_text())["competition"]
    if slug is None:
        _forget_all(store)
    else:
        _forget_competition(store, slug)
    mark.unlink()
    durable.fsync_dir(store.path)


def _forget_all(store: Store) -> None:
    for name in FOLDERS:
        _remove(store.path / name)
    with store.write() as db:
        for table in TABLES:
            db.execute(f"DELETE FROM {table}")  # noqa: S608 -- our own names


def _forget_competition(store: Store, slug: str) -> None:
    finals.select(store, slug, ())
    store.execute("DELETE FROM submission WHERE competition = ?", (slug,))
    _remove(store.competition_folder(slug))


def _remove(folder: Path) -> None:
    with contextlib.suppress(FileNotFoundError):
        shutil.rmtree(folder)

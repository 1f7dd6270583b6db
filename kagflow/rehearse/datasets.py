"""Dataset versions: uploads become numbered trees, with archives unpacked as Kaggle does."""

from __future__ import annotations

import json
import shutil
import sqlite3
import tarfile
import threading
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path, PurePosixPath
from typing import Any

from kagflow import durable
from kagflow.rehearse.blobs import blob_path
from kagflow.rehearse.store import Store, files_under, now

# What Kaggle unpacks on its side; a wheel is a zip too, but stays as it is.
# A version's states on the way, and at its end.
STEPS = (
    "BLOBS_RECEIVED",
    "BLOBS_DECOMPRESSED",
    "BLOBS_COPIED_TO_SDS",
    "INDIVIDUAL_BLOBS_COMPRESSED",
)
ENDED = ("READY", "FAILED")
# Letters in a file's name that Kaggle takes, and fails on later.
REJECTED = frozenset("@&")
ARCHIVES = (".tar.gz", ".tar.bz2", ".tar.xz", ".tgz", ".tar", ".zip")


@dataclass(frozen=True)
class Upload:
    """Name one finished upload and where in the dataset it goes."""

    token: str
    path: str


@dataclass(frozen=True)
class Version:
    """Describe one version of a dataset; `tree` is complete when `status` is READY."""

    dataset: int
    owner: str
    slug: str
    number: int
    status: str
    tree: Path

    @property
    def ready(self) -> bool:
        """Tell whether kernels can mount it."""
        return self.status == "READY"


def find(store: Store, owner: str, slug: str, number: int | None = None) -> Version | None:
    """Return a version of a dataset, the newest by default; None where there is none."""
    return next(iter(_versions(store, owner, slug, number)), None)


def by_source(store: Store, source: str) -> Version | None:
    """Return what a kernel's source "owner/slug" or "owner/slug/N" mounts; None for nothing.

    Without a number it is the newest version that is ready, so that a kernel pushed too early
    gets the one before.
    """
    owner, _, rest = source.partition("/")
    slug, _, label = rest.partition("/")
    pinned = label.isdigit() and store.settings.version_pin_honoured
    found = _versions(store, owner, slug, int(label) if pinned else None)
    return next((version for version in found if version.ready), None)


def shown_status(row: sqlite3.Row, ready_s: float) -> str:
    """Return the state that a version shows: processing takes `ready_s` seconds at least."""
    age = (datetime.fromisoformat(now()) - datetime.fromisoformat(row["created"])).total_seconds()
    if row["status"] not in ENDED or age < ready_s:
        return STEPS[min(max(int(age / max(ready_s, 0.001) * len(STEPS)), 0), len(STEPS) - 1)]
    return str(row["status"])


def _versions(store: Store, owner: str, slug: str, number: int | None) -> Iterator[Version]:
    rows = store.rows(
        "SELECT v.*, d.owner, d.slug FROM dataset_version v JOIN dataset d ON d.id = v.dataset "
        "WHERE d.owner = ? AND d.slug = ? AND (? IS NULL OR v.number = ?) ORDER BY v.number DESC",
        (owner, slug, number, number),
    )
    ready_s = store.settings.dataset_ready_s
    for row in rows:
        tree = _tree(store, row["owner"], row["slug"], row["number"])
        status = shown_status(row, ready_s)
        yield Version(row["dataset"], row["owner"], row["slug"], row["number"], status, tree)


def resolve_uploads(store: Store, uploads: Sequence[Upload]) -> list[Upload] | None:
    """Put each upload's own name at the end of its folder; None when one is not finished."""
    named = []
    for upload in uploads:
        row = store.row("SELECT name FROM blob WHERE token = ? AND done = 1", (upload.token,))
        if row is None:
            return None
        # The name comes from outside: only its last part counts.
        named.append(Upload(upload.token, str(PurePosixPath(upload.path, Path(row["name"]).name))))
    return named


def create(store: Store, values: Mapping[str, Any], uploads: Sequence[Upload]) -> None:
    """Record a dataset with its first version, and process it in the background."""
    columns, marks = ", ".join(values), ", ".join("?" * len(values))
    with store.write() as db:
        dataset = db.execute(
            f"INSERT INTO dataset ({columns}) VALUES ({marks})",  # noqa: S608 -- our own names
            tuple(values.values()),
        ).lastrowid
        number = _insert_version(db, int(dataset or 0), uploads, "Initial release")
    _process_later(store, int(dataset or 0), number)


def add_version(store: Store, dataset: int, uploads: Sequence[Upload], notes: str) -> None:
    """Record the next version of a dataset and process it in the background."""
    with store.write() as db:
        number = _insert_version(db, dataset, uploads, notes)
    _process_later(store, dataset, number)


def _insert_version(
    db: sqlite3.Connection, dataset: int, uploads: Sequence[Upload], notes: str
) -> int:
    files = json.dumps([[upload.token, upload.path] for upload in uploads])
    number = (
        1
        + db.execute(
            "SELECT COALESCE(MAX(number), 0) FROM dataset_version WHERE dataset = ?", (dataset,)
        ).fetchone()[0]
    )
    db.execute(
        "INSERT INTO dataset_version (dataset, number, notes, status, created, files) "
        "VALUES (?, ?, ?, 'BLOBS_RECEIVED', ?, ?)",
        (dataset, number, notes, now(), files),
    )
    return int(number)


def resume_processing(store: Store) -> None:
    """Go on with every version that a kill left half processed."""
    for row in store.rows("SELECT * FROM dataset_version WHERE status = 'BLOBS_RECEIVED'"):
        _process_later(store, row["dataset"], row["number"])


def _process_later(store: Store, dataset: int, number: int) -> None:
    threading.Thread(target=_process, args=(store, dataset, number), daemon=True).start()


def _process(store: Store, dataset: int, number: int) -> None:
    row = store.row(
        "SELECT v.files, d.owner, d.slug FROM dataset_version v JOIN dataset d ON d.id = v.dataset "
        "WHERE v.dataset = ? AND v.number = ?",
        (dataset, number),
    )
    assert row is not None
    final = _tree(store, row["owner"], row["slug"], number)
    status = "READY"
    try:
        if not final.exists():
            with durable.staging(final) as staged:
                for token, path in json.loads(row["files"]):
                    _place(
                        blob_path(store, token),
                        staged,
                        PurePosixPath(path),
                        unpacked=_unpacked(store),
                    )
    except (OSError, ValueError, zipfile.BadZipFile, tarfile.TarError):
        status = "FAILED"
    size = sum(path.stat().st_size for path in files_under(final)) if status == "READY" else 0
    store.execute(
        "UPDATE dataset_version SET status = ?, bytes = ? WHERE dataset = ? AND number = ?",
        (status, size, dataset, number),
    )


def _unpacked(store: Store) -> tuple[str, ...]:
    """Return the endings of what this Kaggle unpacks."""
    archives = ARCHIVES if store.settings.archives_unpacked else ()
    return archives if store.settings.wheels_whole else (*archives, ".whl")


def _place(blob: Path, tree: Path, path: PurePosixPath, *, unpacked: tuple[str, ...]) -> None:
    if REJECTED & set(str(path)):
        raise ValueError(f"the name '{path}' is not allowed")
    target = _inside(tree, path)
    suffix = next((end for end in unpacked if path.name.lower().endswith(end)), None)
    if suffix is not None and _unpack(blob, tree, path.with_name(path.name[: -len(suffix)])):
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(blob, target)


def _unpack(blob: Path, tree: Path, folder: PurePosixPath) -> bool:
    """Unpack an archive into the folder of its name; False where it is no archive after all."""
    target = _inside(tree, folder)
    if zipfile.is_zipfile(blob):
        with zipfile.ZipFile(blob) as archive:
            for member in archive.namelist():
                _inside(target, PurePosixPath(member))
            archive.extractall(target)  # noqa: S202 -- every member was looked at
        return True
    if tarfile.is_tarfile(blob):
        with tarfile.open(blob) as archive:
            archive.extractall(target, filter="data")
        return True
    return False


def _inside(tree: Path, path: PurePosixPath) -> Path:
    if path.is_absolute() or ".." in path.parts:
        raise ValueError(f"{path} leaves the dataset")
    return tree / path


def _tree(store: Store, owner: str, slug: str, number: int) -> Path:
    return store.path / "datasets" / owner / slug / str(number)

"""Bring a competition's data here, whole and checked, once."""

from __future__ import annotations

import contextlib
import hashlib
import json
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kagflow import durable
from kagflow.errors import DataError, LocalError, RefusedError
from kagflow.progress import QUIET, Progress
from kagflow.ship import archive
from kagflow.ship.archive import Unpacked
from kagflow.ship.remote import Remote
from kagflow.task import folds as folds_file
from kagflow.task import index as index_file
from kagflow.task import labels as labels_file
from kagflow.task.spec import TaskSpec

SCHEMA = 1
MANIFEST = "manifest.json"
INDEX = "index.csv"
FOLDS = "folds.csv"
# A competition of this host is generated look-alike data.
GENERATED_HOST = "kagflow-mini"
SPARE = 1.2  # free disk that is asked for, over what is needed
WAIT = 5.0  # seconds for another kagflow that fetches the same


@dataclass(frozen=True)
class Fetched:
    """Say what is there now; `already` where nothing had to be done."""

    path: Path
    files: int
    bytes: int
    images: int
    generated: bool
    profile: str
    already: bool


@dataclass(frozen=True)
class Indexed:
    """Say what the index and the folds hold."""

    images: int
    clusters: int
    folds: int
    already: bool


def fetch(
    remote: Remote,
    spec: TaskSpec,
    target: Path,
    *,
    progress: Progress = QUIET,
    force: bool = False,
) -> Fetched:
    """Download, verify and unpack into `target`; a fetch that holds is a no-op.

    The folder appears only whole: archive beside it, checked member by member, manifest last,
    then one rename. Raises RefusedError for data of another profile, DataError for a damaged
    archive or tree, LocalError where the disk is too full.
    """
    with _alone(target):
        _mend(target)
        if target.exists() and not force:
            manifest = read_manifest(target)
            _same_profile(manifest, remote.profile, target)
            _check_tree(target, manifest)
            return _fetched(target, manifest, spec, already=True)
        _download(remote, spec, target, progress)
        return _fetched(target, read_manifest(target), spec, already=False)


def read_manifest(data: Path) -> dict[str, Any]:
    """Return a fetched folder's manifest; raise DataError where it is not a whole fetch."""
    try:
        manifest = json.loads((data / MANIFEST).read_text())
        if manifest["schema"] == SCHEMA and manifest["files"]:
            return dict(manifest)
    except (OSError, ValueError, KeyError, TypeError):
        pass
    raise DataError(
        f"{data} is not a whole download",
        hint=f"move {data} away and fetch again, or fetch --force",
    )


def index_data(
    data: Path, spec: TaskSpec, *, folds: int, seed: int, progress: Progress = QUIET
) -> Indexed:
    """Decode every training image, check every label row, and write index and folds, once.

    Raises DataError with file and line for a row whose image, class or run lengths are wrong,
    RefusedError where other folds were written before.
    """
    index_path, folds_path = data / INDEX, data / FOLDS
    already = index_path.is_file() and folds_path.is_file()
    if index_path.is_file():
        index = index_file.read_index(index_path)
    else:
        rows = index_file.build_index(data / spec.train_images, progress)
        index = {row.image_id: row for row in rows}
        index_file.write_index(index_path, rows)
    if already:
        split = folds_file.read_folds(folds_path)
        _same_folds(split, folds, folds_path)
    else:
        sizes = {name: (row.height, row.width) for name, row in index.items()}
        labels = labels_file.read_labels(data / spec.train_csv, spec, sizes=sizes)
        split = folds_file.make_folds(index.values(), labels, spec, k=folds, seed=seed)
        folds_file.write_folds(folds_path, split)
    clusters = len({cluster for cluster, _ in split.values()})
    return Indexed(len(index), clusters, folds, already)


def _download(remote: Remote, spec: TaskSpec, target: Path, progress: Progress) -> None:
    info = remote.competition(spec.slug)
    source = {
        "competition": spec.slug,
        "profile": remote.profile,
        # The embedded server's port is no property of the data.
        "source": "local" if remote.profile == "local" else remote.source,
        "generated": info.host == GENERATED_HOST,
    }
    zipped = target.parent / f".{target.name}.zip"
    bad = zipped.with_suffix(".bad")
    for attempt in (1, 2):
        remote.download(
            spec.slug, zipped, progress=progress, on_size=lambda size: _need(target, 2 * size)
        )
        try:
            _need(target, archive.contents(zipped))
            _place(zipped, target, source, progress)
            break
        except DataError as error:
            zipped.replace(bad)
            if attempt == 2:
                raise DataError(
                    f"{spec.slug}: downloaded twice, damaged twice: {error.message}",
                    hint=f"the archive is kept as {bad}",
                ) from None
    zipped.unlink()
    bad.unlink(missing_ok=True)


def _place(zipped: Path, target: Path, source: Mapping[str, Any], progress: Progress) -> None:
    made, old = _beside(target)
    with durable.staging(made) as folder:
        files = archive.unpack(zipped, folder, progress=progress)
        clash = {MANIFEST, INDEX, FOLDS} & {file.name for file in files}
        if clash:
            raise DataError(f"archive member '{min(clash)}' has a name that kagflow writes itself")
        durable.write_json(folder / MANIFEST, {**source, **_listed(files)})
    if target.exists():
        _keep_derived(target, made)
        target.rename(old)
    made.rename(target)
    durable.fsync_dir(target.parent)
    shutil.rmtree(old, ignore_errors=True)


def _mend(target: Path) -> None:
    """Take away what a kill left: half-unpacked folders; data that was being replaced returns."""
    made, old = _beside(target)
    if old.exists() and not target.exists():
        old.rename(target)
    for stale in (made, old, *target.parent.glob(f".{made.name}.*.staging")):
        shutil.rmtree(stale, ignore_errors=True)


def _beside(target: Path) -> tuple[Path, Path]:
    return target.parent / f".{target.name}.new", target.parent / f".{target.name}.old"


def _keep_derived(old: Path, new: Path) -> None:
    """Carry index and folds over where the data is the same, so that runs stay comparable."""
    before = _hashes(old)
    if before is None or before != _hashes(new):
        return
    for name in (INDEX, FOLDS):
        if (old / name).is_file():
            shutil.copy2(old / name, new / name)


def _hashes(data: Path) -> dict[str, str] | None:
    try:
        return {name: file["sha256"] for name, file in read_manifest(data)["files"].items()}
    except DataError:
        return None


def _listed(files: list[Unpacked]) -> dict[str, Any]:
    listed = {file.name: {"bytes": file.size, "sha256": file.sha256} for file in files}
    digest = hashlib.sha256(json.dumps(listed, sort_keys=True).encode()).hexdigest()
    return {"schema": SCHEMA, "version": digest[:16], "files": listed}


def _check_tree(data: Path, manifest: Mapping[str, Any]) -> None:
    """Compare size and time of every file; a file with another time is hashed."""
    wrong = []
    for name, noted in manifest["files"].items():
        path = data / name
        try:
            found = path.lstat()
        except OSError:
            wrong.append(name)
            continue
        same = found.st_size == noted["bytes"]
        if same and int(found.st_mtime) != archive.UNTOUCHED:
            same = durable.sha256_file(path) == noted["sha256"]
        if not same:
            wrong.append(name)
    if wrong:
        raise DataError(
            f"{data}: {len(wrong)} files are missing or changed, the first is {wrong[0]}",
            hint="kagflow fetch --force",
        )


def _fetched(data: Path, manifest: Mapping[str, Any], spec: TaskSpec, *, already: bool) -> Fetched:
    files = manifest["files"]
    folders = (f"{spec.train_images}/", f"{spec.test_images}/")
    images = sum(1 for name in files if name.startswith(folders))
    size = sum(file["bytes"] for file in files.values())
    generated, profile = bool(manifest["generated"]), str(manifest["profile"])
    return Fetched(data, len(files), size, images, generated, profile, already)


def _same_profile(manifest: Mapping[str, Any], profile: str, data: Path) -> None:
    if manifest["profile"] != profile:
        raise RefusedError(
            f"{data} was fetched under profile '{manifest['profile']}', this is '{profile}'",
            hint=f"--profile {manifest['profile']}, or move the folder away",
        )


def _same_folds(split: Mapping[str, tuple[int, int]], folds: int, path: Path) -> None:
    there = 1 + max(fold for _, fold in split.values())
    if there != folds:
        raise RefusedError(
            f"{path} has {there} folds, the competition asks for {folds}: earlier runs rest on "
            "the folds that are there",
            hint=f"set folds: {there} in competition.yaml, or move {path} away",
        )


def _need(target: Path, needed: int) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(target.parent).free
    if free < needed * SPARE:
        raise LocalError(
            f"{target.parent}: {free / 1e9:.1f} GB free, {needed * SPARE / 1e9:.1f} GB needed",
            hint="free some disk, or use a workspace on a larger one",
        )


@contextlib.contextmanager
def _alone(target: Path) -> Iterator[None]:
    from filelock import FileLock, Timeout

    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(target.parent / f".{target.name}.lock", timeout=WAIT):
            yield
    except Timeout:
        raise RefusedError(
            f"another kagflow is fetching into {target}", hint="wait for it, then run again"
        ) from None

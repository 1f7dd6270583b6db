"""Bring a competition's data here, whole and checked, once."""

from __future__ import annotations

import contextlib
import errno
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from kagflow import durable
from kagflow.errors import DataError, LocalError, RefusedError, RemoteError
from kagflow.progress import QUIET, Progress
from kagflow.ship import remote_parts, single
from kagflow.ship.ahead import Ahead
from kagflow.ship.archive import Unpacked
from kagflow.ship.claim import claim
from kagflow.ship.manifest import MANIFEST, check_tree, hashes, read_manifest, write_manifest
from kagflow.ship.remote import Remote
from kagflow.task import surveyed
from kagflow.task.spec import TaskSpec
from kagflow.task.surveyed import Plan, Surveyed

# A competition of this host is generated look-alike data.
GENERATED_HOST = "kagflow-mini"
SPARE = 1.2  # free disk that is asked for, over what is needed
FULL = frozenset({errno.ENOSPC, errno.EDQUOT})


@dataclass(frozen=True)
class Wish:
    """Say how to fetch: `only` files that match a pattern, anew by `force`, hashed by `verify`."""

    only: str | None = None
    force: bool = False
    verify: bool = False


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
    only: str | None = None


def fetch(
    remote: Remote,
    spec: TaskSpec,
    target: Path,
    *,
    wish: Wish = Wish(),
    progress: Progress = QUIET,
) -> Fetched:
    """Download, verify and unpack into `target`; a fetch that holds is a no-op.

    The folder appears only whole: archive beside it, checked member by member, manifest last,
    then one rename, then the archive goes. Raises RefusedError for data of another profile or
    while another kagflow fetches it, DataError for a damaged archive or tree, LocalError where
    the disk is too full.
    """
    with _disk(target), claim(target, "is fetching"):
        _mend(target)
        if target.exists() and not wish.force:
            manifest = read_manifest(target)
            _same_profile(manifest, remote.profile, target)
            if manifest.get("only") in (None, wish.only):
                check_tree(target, manifest, verify=wish.verify, progress=progress)
                _clear(target)
                return _fetched(target, manifest, spec, already=True)
        _Fetch(remote, spec, target, wish.only, progress).run()
        return _fetched(target, read_manifest(target), spec, already=False)


def index_data(data: Path, spec: TaskSpec, plan: Plan, *, progress: Progress = QUIET) -> Surveyed:
    """Survey what was fetched and cut the folds, once; one kagflow at a time.

    Raises as `kagflow.task.survey.survey` does, and DataError where only some files were fetched.
    """
    with _disk(data), claim(data, "is indexing"):
        manifest = read_manifest(data)
        if manifest.get("only"):
            raise DataError(
                f"{data} holds only what matches '{manifest['only']}'", hint="kagflow fetch"
            )
        found = surveyed.standing(data, plan)
        if found:
            return found
        # Imported here: a rerun that has nothing to do needs no image library.
        from kagflow.task.survey import survey

        return survey(data, spec, plan, version=manifest["version"], progress=progress)


@dataclass(frozen=True)
class _Fetch:
    remote: Remote
    spec: TaskSpec
    target: Path
    only: str | None
    progress: Progress

    def run(self) -> None:
        info = self.remote.competition(self.spec.slug)
        local = self.remote.profile == "local"
        source = {
            "competition": self.spec.slug,
            "profile": self.remote.profile,
            # The embedded server's port is no property of the data.
            "source": "local" if local else self.remote.source,
            "generated": info.host == GENERATED_HOST,
            **({"only": self.only} if self.only else {}),
        }
        if not (self.only and self._singly(self.only, source)):
            self._whole(source)
        _clear(self.target)

    def _singly(self, only: str, source: Mapping[str, Any]) -> bool:
        """Bring the wanted files one by one; False where the archive has to come instead."""
        slug, aside = self.spec.slug, _aside(self.target)
        try:
            files = single.wanted(self.remote, slug, only, progress=self.progress)
            if not files:
                return False
            _need(self.target, sum(file.size or 0 for file in files))
            found = single.bring(self.remote, slug, files, aside, progress=self.progress)
            with self._staged(source) as (folder, placed):
                placed.extend(_ours_apart(single.place(files, found, folder)))
        except (RemoteError, DataError) as error:
            self.progress.note(f"the whole archive has to come: {error.message}")
            return False
        return True

    def _whole(self, source: Mapping[str, Any]) -> None:
        zipped, bad = _archive(self.target), _bad(self.target)
        with self._staged(source) as (folder, placed):
            ahead = Ahead(folder, self.only, partial(_need, self.target))
            for attempt in (1, 2):
                self._download(zipped, ahead)
                try:
                    placed.extend(_ours_apart(ahead.finish(zipped, progress=self.progress)))
                    break
                except DataError as error:
                    ahead.begin()
                    zipped.replace(bad)
                    remote_parts.forget(zipped)
                    if attempt == 2:
                        raise DataError(
                            f"{self.spec.slug}: downloaded twice, damaged twice: {error.message}",
                            hint=f"the archive is kept as {bad}",
                        ) from None

    def _download(self, zipped: Path, ahead: Ahead) -> None:
        part = remote_parts.part_path(zipped)

        def room(size: int) -> None:
            # What the archive holds is listed at its end: until then, as much again is assumed.
            _need(self.target, 2 * size - _used(zipped) - _used(part))

        self.remote.download(
            self.spec.slug, zipped, progress=self.progress, on_size=room, watch=ahead
        )

    @contextlib.contextmanager
    def _staged(self, source: Mapping[str, Any]) -> Iterator[tuple[Path, list[Unpacked]]]:
        """Yield an empty folder and a list for its files; then it gets its manifest and name."""
        target, files = self.target, list[Unpacked]()
        made, old = _beside(target)
        with durable.staging(made) as folder:
            yield folder, files
            write_manifest(folder, source, files)
        if target.exists():
            _keep_derived(target, made)
            target.rename(old)
        made.rename(target)
        durable.fsync_dir(target.parent)
        shutil.rmtree(old, ignore_errors=True)


def _ours_apart(files: list[Unpacked]) -> list[Unpacked]:
    clash = {MANIFEST, *surveyed.WRITTEN} & {file.name for file in files}
    if clash:
        raise DataError(f"archive member '{min(clash)}' has a name that kagflow writes itself")
    return files


def _mend(target: Path) -> None:
    """Take away what a kill left: half-unpacked folders; data that was being replaced returns."""
    made, old = _beside(target)
    if old.exists() and not target.exists():
        old.rename(target)
    for stale in (made, old, *target.parent.glob(f".{made.name}.*.staging")):
        shutil.rmtree(stale, ignore_errors=True)


def _clear(target: Path) -> None:
    remote_parts.forget(_archive(target))
    _bad(target).unlink(missing_ok=True)
    shutil.rmtree(_aside(target), ignore_errors=True)


def _archive(target: Path) -> Path:
    return target.parent / f".{target.name}.zip"


def _bad(target: Path) -> Path:
    return target.parent / f".{target.name}.bad"


def _aside(target: Path) -> Path:
    return target.parent / f".{target.name}.some"


def _beside(target: Path) -> tuple[Path, Path]:
    return target.parent / f".{target.name}.new", target.parent / f".{target.name}.old"


def _keep_derived(old: Path, new: Path) -> None:
    """Carry index and folds over where the data is the same, so that runs stay comparable."""
    before = hashes(old)
    if before is None or before != hashes(new):
        return
    for name in surveyed.KEPT:
        if (old / name).is_file():
            durable.write_bytes(new / name, (old / name).read_bytes())


def _fetched(data: Path, manifest: Mapping[str, Any], spec: TaskSpec, *, already: bool) -> Fetched:
    files = manifest["files"]
    folders = (f"{spec.train_images}/", f"{spec.test_images}/")
    return Fetched(
        data,
        files=len(files),
        bytes=sum(file["bytes"] for file in files.values()),
        images=sum(1 for name in files if name.startswith(folders)),
        generated=bool(manifest["generated"]),
        profile=str(manifest["profile"]),
        already=already,
        only=manifest.get("only"),
    )


def _same_profile(manifest: Mapping[str, Any], profile: str, data: Path) -> None:
    if manifest["profile"] != profile:
        raise RefusedError(
            f"{data} was fetched under profile '{manifest['profile']}', this is '{profile}'",
            hint=f"--profile {manifest['profile']}, or move the folder away",
        )


def _used(path: Path) -> int:
    """Return the bytes that a file takes on disk; a file with holes takes less than its size."""
    try:
        return path.stat().st_blocks * 512
    except OSError:
        return 0


def _need(target: Path, needed: int) -> None:
    free = shutil.disk_usage(target.parent).free
    if free < needed * SPARE:
        raise LocalError(
            f"{target.parent}: {free / 1e9:.1f} GB free, {needed * SPARE / 1e9:.1f} GB needed",
            hint="free some disk, or use a workspace on a larger one",
        )


@contextlib.contextmanager
def _disk(target: Path) -> Iterator[None]:
    """Name a full disk as what it is; what is done so far stays for the next attempt."""
    try:
        yield
    except OSError as error:
        if error.errno not in FULL:
            raise
        raise LocalError(
            f"{target.parent}: the disk is full ({error.filename or 'writing'})",
            hint="free some disk and run the same command again: it resumes",
        ) from None

"""Bring single files of a competition, where its listing shows that they are less than the whole.

A file alone carries no CRC: its size must be the listed one, and storage's checksum is compared
where it sends one. Whatever does not agree is left to the archive, whose members are all checked.
"""

from __future__ import annotations

import fnmatch
import hashlib
import os
from collections.abc import Sequence
from pathlib import Path, PurePosixPath

from kagflow import durable
from kagflow.errors import DataError
from kagflow.progress import QUIET, Progress
from kagflow.ship import archive, listing
from kagflow.ship.archive import UNTOUCHED, Unpacked
from kagflow.ship.remote import Remote
from kagflow.ship.remote_types import Downloaded, RemoteFile

FEW = 16  # files that come one by one whatever they weigh
EACH = 4 << 20  # bytes that could come in the time of a call and a connection of its own


def wanted(remote: Remote, slug: str, only: str, *, progress: Progress = QUIET) -> list[RemoteFile]:
    """List the files whose path matches `only`; none where the archive is the shorter way.

    None, too, where the listing lacks a size or names a file that must not be written as it says.
    """
    progress.start("list files")
    try:
        listed = remote.files(slug)
    finally:
        progress.finish()
    found = [file for file in listed if fnmatch.fnmatchcase(file.name, only)]
    if listing.names_fault([file.name for file in found]) or any(not one.size for one in found):
        return []
    price = sum(EACH + (file.size or 0) for file in found)
    return found if len(found) <= FEW or price < sum(file.size or 0 for file in listed) else []


def bring(
    remote: Remote, slug: str, files: Sequence[RemoteFile], aside: Path, *, progress: Progress
) -> list[Downloaded]:
    """Download each file into the folder `aside`; what a broken attempt left there goes on.

    Raises DataError for a file of another size than the listing's.
    """
    found = []
    for file in files:
        # By a hash: a competition's own names may be those of the notes beside a download.
        path = aside / hashlib.sha256(file.name.encode()).hexdigest()[:32]
        got = remote.download_file(slug, file.name, path, progress=progress)
        if not _is_packed(got, file) and got.size != file.size:
            raise DataError(f"{file.name} has {got.size} bytes, {file.size} are listed")
        found.append(got)
    return found


def place(files: Sequence[RemoteFile], found: Sequence[Downloaded], folder: Path) -> list[Unpacked]:
    """Move the downloaded files to their names in an empty folder; raise DataError for damage."""
    return [_placed(file, got, folder) for file, got in zip(files, found, strict=True)]


def _is_packed(got: Downloaded, file: RemoteFile) -> bool:
    """Tell whether Kaggle packed the file for the way, as it does with large tables."""
    return got.served == PurePosixPath(file.name).name + ".zip"


def _placed(file: RemoteFile, got: Downloaded, folder: Path) -> Unpacked:
    path = folder / file.name
    path.parent.mkdir(parents=True, exist_ok=True)
    if _is_packed(got, file):
        members = listing.members(got.path)
        if [member.name for member in members] != [path.name]:
            raise DataError(f"{file.name} came packed with something else")
        (inside,) = archive.unpack(got.path, path.parent, members)
        return Unpacked(file.name, inside.size, inside.sha256)
    digest = durable.sha256_file(got.path)
    got.path.rename(path)
    os.utime(path, (UNTOUCHED, UNTOUCHED))
    return Unpacked(file.name, got.size, digest)

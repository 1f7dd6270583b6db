"""Unpack a downloaded archive: every member checked, nothing outside the target."""

from __future__ import annotations

import hashlib
import os
import stat
import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from kagflow.errors import DataError
from kagflow.progress import QUIET, Progress

CHUNK = 1 << 20
# A member that unpacks to more than this many times its size, and is large, is no image or table.
RATIO, LARGE = 200, 1 << 28
MEMBERS = 1_000_000
REGULAR = {0, stat.S_IFREG}
# 2000-01-01: every unpacked file carries it, so that a later write shows without hashing.
UNTOUCHED = 946_684_800
# What a damaged or hostile member raises: bad data, an unknown method, a file where a folder is.
_DAMAGE = (
    zipfile.BadZipFile,
    zlib.error,
    EOFError,
    NotImplementedError,
    FileExistsError,
    NotADirectoryError,
    IsADirectoryError,
)


@dataclass(frozen=True)
class Unpacked:
    """Describe one file as it lies on disk, with the time UNTOUCHED."""

    name: str
    size: int
    sha256: str


def contents(path: Path) -> int:
    """Return the bytes that all members unpack to.

    Raises DataError where the file is no whole archive or a member is unsafe.
    """
    with _open(path) as archive:
        return sum(member.file_size for member in _members(archive))


def unpack(path: Path, target: Path, *, progress: Progress = QUIET) -> list[Unpacked]:
    """Unpack into an empty folder, checking size and CRC of every member.

    Raises DataError naming the member that is unsafe or not as the archive lists it.
    """
    with _open(path) as archive:
        members = list(_members(archive))
        progress.start("unpack", float(sum(member.file_size for member in members)), "B")
        try:
            return [_unpack(archive, member, target, progress) for member in members]
        finally:
            progress.finish()


def _open(path: Path) -> zipfile.ZipFile:
    try:
        return zipfile.ZipFile(path)
    except (zipfile.BadZipFile, OSError) as error:
        raise DataError(f"{path.name} is not a whole zip archive: {error}") from None


def _members(archive: zipfile.ZipFile) -> Iterator[zipfile.ZipInfo]:
    listed = archive.infolist()
    if len(listed) > MEMBERS:
        raise DataError(f"the archive lists {len(listed)} members")
    seen: set[str] = set()
    for member in listed:
        fault = _fault(member, seen)
        if fault:
            raise DataError(f"archive member '{member.filename}' {fault}")
        seen.add(member.filename.casefold())
        if not member.is_dir():
            yield member


def _fault(member: zipfile.ZipInfo, seen: set[str]) -> str | None:
    name = member.filename
    path = PurePosixPath(name)
    # Windows separators and drives, and bytes below space, never occur in a competition's data.
    odd = "\\" in name or ":" in name or any(ord(letter) < 32 for letter in name)
    if not name or path.is_absolute() or ".." in path.parts or odd:
        return "would leave the folder"
    if not member.is_dir() and stat.S_IFMT(member.external_attr >> 16) not in REGULAR:
        return "is not a regular file"
    if member.flag_bits & 1:
        return "is encrypted"
    if name.casefold() in seen:
        return "is listed twice"
    if member.file_size > max(LARGE, RATIO * max(member.compress_size, 1)):
        return f"would unpack to {member.file_size} bytes"
    return None


def _unpack(
    archive: zipfile.ZipFile, member: zipfile.ZipInfo, target: Path, progress: Progress
) -> Unpacked:
    path = target / PurePosixPath(member.filename)
    digest, size = hashlib.sha256(), 0
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        # "x": two members must never write one file, whatever the file system folds together.
        with archive.open(member) as source, path.open("xb") as file:
            while chunk := source.read(CHUNK):
                file.write(chunk)
                digest.update(chunk)
                size += len(chunk)
                progress.advance(len(chunk))
    except _DAMAGE as why:
        raise DataError(f"archive member '{member.filename}' is damaged: {why}") from None
    if size != member.file_size:
        raise DataError(
            f"archive member '{member.filename}' has {size} bytes, not {member.file_size}"
        )
    os.utime(path, (UNTOUCHED, UNTOUCHED))
    return Unpacked(member.filename, size, digest.hexdigest())

"""Unpack a downloaded zip archive: every member checked, nothing outside the target.

The listing is read by zipfile and judged as a whole before a byte is written; each member's own
header must agree with it. Members are then read by hand, so that threads share the cores.
"""

from __future__ import annotations

import contextlib
import fnmatch
import hashlib
import os
import re
import stat
import struct
import threading
import unicodedata
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from kagflow.errors import DataError
from kagflow.progress import QUIET, Progress

# What a thread holds of a member at a time.
Buffer = bytes | memoryview
CHUNK = 1 << 20
STRETCH = 8 << 20
# A member or archive that unpacks to more than this many times its size, and is no small one.
RATIO, SMALL = 200, 1 << 20
MEMBERS = 1_000_000
LONGEST_PART, LONGEST_NAME = 255, 1024  # bytes
REGULAR = {0, stat.S_IFREG}
METHODS = {zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED}
# 2000-01-01: every unpacked file carries it, so that a later write shows without hashing.
UNTOUCHED = 946_684_800
WORKERS = min(4, os.cpu_count() or 1)
_ODD = re.compile(r"[\\:\x00-\x1f]")
# signature, version, flags, method, time, date, crc, packed, unpacked, name bytes, extra bytes
_LOCAL = struct.Struct("<4sHHHHHIIIHH")
_ENCRYPTED, _SIZES_FOLLOW, _UTF8 = 0x1, 0x8, 0x800
_IN_EXTRA = 0xFFFFFFFF


@dataclass(frozen=True)
class Unpacked:
    """Describe one file as it lies on disk, with the time UNTOUCHED."""

    name: str
    size: int
    sha256: str


@dataclass(frozen=True)
class Member:
    """Say where in the archive a member's packed bytes are, and what they must become."""

    name: str
    start: int  # of the packed bytes, in the archive
    packed: int
    size: int
    crc: int
    deflated: bool


def members(path: Path, *, only: str | None = None) -> list[Member]:
    """List the files of an archive, or those whose path matches `only`, e.g. `train_images/*`.

    Raises DataError where the file is no whole archive or any member is unsafe.
    """
    with path.open("rb") as file:
        listed = _members(file.fileno(), path)
    if only is None:
        return listed
    found = [member for member in listed if fnmatch.fnmatchcase(member.name, only)]
    if not found:
        raise DataError(
            f"no file of the archive matches '{only}'",
            hint=f"its {len(listed)} files begin with {', '.join(m.name for m in listed[:3])}",
        )
    return found


def unpack(
    path: Path, target: Path, chosen: Sequence[Member], *, progress: Progress = QUIET
) -> list[Unpacked]:
    """Unpack what `members` listed into an empty folder, checking size and CRC of each.

    Raises DataError naming the member that is not as the archive lists it.
    """
    with path.open("rb") as file:
        job = _Job(file.fileno(), target, progress)
        progress.start("unpack", float(sum(member.size for member in chosen)), "B")
        try:
            # The first fault ends the map; `stopped` lets the others end too.
            with ThreadPoolExecutor(WORKERS) as pool, job.stopping():
                return list(pool.map(job.unpack, chosen))
        finally:
            progress.finish()


def _members(descriptor: int, path: Path) -> list[Member]:
    try:
        with zipfile.ZipFile(path) as archive:
            listed, end = archive.infolist(), archive.start_dir
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError, struct.error) as error:
        raise DataError(f"{path.name} is not a whole zip archive: {error}") from None
    if len(listed) > MEMBERS:
        raise DataError(f"the archive lists {len(listed)} members, {MEMBERS} at most are read")
    _refuse_faults(listed, os.fstat(descriptor).st_size)
    found, free = [], 0
    for info in sorted(listed, key=lambda one: one.header_offset):
        member = _agreed(descriptor, info)
        if info.header_offset < free or member.start + member.packed > end:
            raise _fault_of(info, "shares bytes with another member")
        free = member.start + member.packed
        if not info.is_dir():
            found.append(member)
    return found


def _refuse_faults(listed: list[zipfile.ZipInfo], archive_size: int) -> None:
    seen: set[str] = set()
    for info in listed:
        fault = _fault(info)
        # What one file system tells apart, another one folds together.
        key = unicodedata.normalize("NFC", info.filename.rstrip("/")).casefold()
        if fault or key in seen:
            raise _fault_of(info, fault or "is listed twice")
        seen.add(key)
    total = sum(info.file_size for info in listed)
    if total > max(SMALL, RATIO * archive_size):
        raise DataError(f"the archive would unpack to {total} bytes, from {archive_size}")


def _fault(info: zipfile.ZipInfo) -> str | None:
    if _leaves(info.orig_filename):
        return "would leave the folder"
    if _too_long(info.filename):
        return "has a name that is too long"
    if not info.is_dir() and stat.S_IFMT(info.external_attr >> 16) not in REGULAR:
        return "is not a regular file"
    if info.is_dir() and info.file_size:
        return "is a folder with bytes of its own"
    if info.flag_bits & _ENCRYPTED:
        return "is encrypted"
    if info.compress_type not in METHODS:
        return f"is packed by method {info.compress_type}, which is not read"
    if info.file_size > max(SMALL, RATIO * info.compress_size):
        return f"would unpack to {info.file_size} bytes"
    return None


def _leaves(name: str) -> bool:
    path = PurePosixPath(name)
    # Windows separators and drives, and bytes below space, never occur in a competition's data;
    # "a//b" and "./a" are second names of another path.
    odd = _ODD.search(name) is not None
    other = path.as_posix() != name.removesuffix("/")
    return not name or path.is_absolute() or ".." in path.parts or odd or other or name == "."


def _too_long(name: str) -> bool:
    sizes = [len(part.encode(errors="surrogateescape")) for part in name.split("/")]
    return max(sizes) > LONGEST_PART or sum(sizes) + len(sizes) > LONGEST_NAME


def _agreed(descriptor: int, info: zipfile.ZipInfo) -> Member:
    """Return a member whose own header says what the listing says."""
    listed_name = info.orig_filename.encode("utf-8" if info.flag_bits & _UTF8 else "cp437")
    both = os.pread(descriptor, _LOCAL.size + len(listed_name), info.header_offset)
    head, name = both[: _LOCAL.size], both[_LOCAL.size :]
    if len(head) < _LOCAL.size or not head.startswith(b"PK\3\4"):
        raise _fault_of(info, "has no header where the listing says")
    _, _, flags, method, _, _, crc, packed, size, names, extra = _LOCAL.unpack(head)
    says = [(method, info.compress_type), (flags & _ENCRYPTED, 0)]
    if not flags & _SIZES_FOLLOW:
        says += [(crc, info.CRC), (packed, info.compress_size), (size, info.file_size)]
    says = [(mine, listed) for mine, listed in says if mine != _IN_EXTRA]
    says.append((names, len(listed_name)))
    if name != listed_name or any(mine != listed for mine, listed in says):
        raise _fault_of(info, "has a header that disagrees with the listing")
    start = info.header_offset + _LOCAL.size + names + extra
    deflated = info.compress_type == zipfile.ZIP_DEFLATED
    return Member(info.filename, start, info.compress_size, info.file_size, info.CRC, deflated)


def _fault_of(info: zipfile.ZipInfo, what: str) -> DataError:
    return DataError(f"archive member {info.filename[:200]!r} {what}")


@dataclass
class _Job:
    """Unpack members of one archive into one folder."""

    descriptor: int
    target: Path
    progress: Progress
    stopped: threading.Event = field(default_factory=threading.Event)
    folders: set[Path] = field(default_factory=set)
    mine: threading.local = field(default_factory=threading.local)

    @contextlib.contextmanager
    def stopping(self) -> Iterator[None]:
        try:
            yield
        finally:
            self.stopped.set()

    def unpack(self, member: Member) -> Unpacked:
        path = self.target / member.name
        digest, size, crc = hashlib.sha256(), 0, 0
        try:
            self._make_folder(path.parent)
            # Exclusive: two members must never write one file, whatever the file system folds
            # together. No buffered file object: it costs more than a small image's own bytes.
            out = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o644)
            try:
                for chunk in self._bytes(member):
                    _write(out, chunk)
                    digest.update(chunk)
                    crc = zlib.crc32(chunk, crc)
                    size += len(chunk)
                os.utime(out, (UNTOUCHED, UNTOUCHED))
            finally:
                os.close(out)
        except (zlib.error, EOFError, FileExistsError, NotADirectoryError) as why:
            raise DataError(f"archive member '{member.name}' is damaged: {why}") from None
        if size != member.size or crc != member.crc:
            what = "another CRC" if size == member.size else f"{size} bytes, not {member.size}"
            raise DataError(f"archive member '{member.name}' has {what} than the archive lists")
        self._let_go(member)
        self.progress.advance(size)
        return Unpacked(member.name, size, digest.hexdigest())

    def _let_go(self, member: Member) -> None:
        """Tell the system that a stretch of the archive that ends here is not read again.

        Its memory then takes the unpacked files: memory that was never used costs more than
        copying, and on a small machine the archive would push other things out.
        """
        last = (member.start + member.packed) // STRETCH
        if last > member.start // STRETCH:
            # One stretch back: other threads may still be at the one that just ended.
            before = max(0, last - 2) * STRETCH
            os.posix_fadvise(self.descriptor, before, STRETCH, os.POSIX_FADV_DONTNEED)

    def _make_folder(self, folder: Path) -> None:
        if folder not in self.folders:
            folder.mkdir(parents=True, exist_ok=True)
            self.folders.add(folder)

    def _bytes(self, member: Member) -> Iterator[Buffer]:
        raw = self._raw(member)
        if not member.deflated:
            yield from raw
            return
        inflate, left = zlib.decompressobj(-zlib.MAX_WBITS), member.size
        for packed in raw:
            rest: Buffer = packed
            while rest and not inflate.eof:
                # One byte more than listed is enough to see a lie.
                chunk = inflate.decompress(rest, min(CHUNK, left + 1))
                left -= len(chunk)
                if left < 0:
                    raise EOFError("it is longer than listed")
                yield chunk
                rest = inflate.unconsumed_tail
        if not inflate.eof or inflate.unused_data:
            raise EOFError("its packed bytes do not end where listed")

    def _raw(self, member: Member) -> Iterator[memoryview]:
        """Yield the packed bytes in a buffer that the next turn fills anew."""
        buffer = self._buffer()
        at, end = member.start, member.start + member.packed
        while at < end:
            if self.stopped.is_set():
                raise EOFError("stopped")
            read = os.preadv(self.descriptor, [buffer[: min(CHUNK, end - at)]], at)
            if not read:
                raise EOFError("the archive ends early")
            yield buffer[:read]
            at += read

    def _buffer(self) -> memoryview:
        # One for each thread: a fresh megabyte for every image would be fetched from the system.
        if not hasattr(self.mine, "buffer"):
            self.mine.buffer = memoryview(bytearray(CHUNK))
        buffer: memoryview = self.mine.buffer
        return buffer


def _write(descriptor: int, chunk: Buffer) -> None:
    view = memoryview(chunk)
    while view:
        view = view[os.write(descriptor, view) :]

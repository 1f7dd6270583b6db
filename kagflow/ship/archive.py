"""Unpack a downloaded zip archive: every member checked, nothing outside the target.

Members are read by hand, so that threads share the cores; each one's own header must agree with
the listing.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import threading
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

from kagflow.errors import DataError
from kagflow.progress import QUIET, Progress
from kagflow.ship.listing import Member

Buffer = bytes | memoryview
CHUNK = 1 << 20  # what a thread holds of a member at a time
# More than a member's own header has beyond its name: what it has in excess is read a second time.
HEAD = 64
STRETCH = 8 << 20  # bytes of the archive after which the system may forget them
# 2000-01-01: every unpacked file carries it, so that a later write shows without hashing.
UNTOUCHED = 946_684_800
WORKERS = min(4, os.cpu_count() or 1)


@dataclass(frozen=True, slots=True)
class Unpacked:
    """Describe one file as it lies on disk, with the time UNTOUCHED."""

    name: str
    size: int
    sha256: str


def unpack(
    path: Path, target: Path, chosen: Sequence[Member], *, progress: Progress = QUIET
) -> list[Unpacked]:
    """Unpack what `members` listed into a folder, checking header, size and CRC of each.

    Raises DataError naming the member that is not as the archive lists it.
    """
    unpacker = Unpacker(target)

    def one(member: Member) -> Unpacked:
        file = unpacker.unpack(descriptor, member)
        let_go(descriptor, member)
        progress.advance(file.size)
        return file

    descriptor = os.open(path, os.O_RDONLY)
    progress.start("unpack", float(sum(member.size for member in chosen)), "B")
    try:
        # The first fault ends the map; `stopping` lets the others end too.
        with ThreadPoolExecutor(WORKERS) as pool, unpacker.stopping():
            return list(pool.map(one, chosen))
    finally:
        progress.finish()
        os.close(descriptor)


def let_go(descriptor: int, member: Member) -> None:
    """Tell the system that the stretches of the archive before this member are not read again.

    Their memory then takes the unpacked files: memory that was never used costs more than copying,
    and on a small machine the archive would push other things out.
    """
    last = member.end // STRETCH
    if last > member.at // STRETCH:
        # One stretch back: other threads may still be at the one that just ended. What was not on
        # disk yet is sent there, and forgotten when the next stretch ends.
        before = max(0, last - 4) * STRETCH
        os.posix_fadvise(descriptor, before, 3 * STRETCH, os.POSIX_FADV_DONTNEED)


@dataclass
class Unpacker:
    """Unpack members of an archive into one folder, from any thread."""

    target: Path
    _stopped: threading.Event = field(default_factory=threading.Event, init=False)
    _folders: set[str] = field(default_factory=set, init=False)
    _mine: threading.local = field(default_factory=threading.local, init=False)

    @contextlib.contextmanager
    def stopping(self) -> Iterator[None]:
        """End what other threads unpack when the block ends."""
        try:
            yield
        finally:
            self._stopped.set()

    def unpack(self, descriptor: int, member: Member) -> Unpacked:
        """Write one member of the open archive; raise DataError where it is not as listed."""
        path = f"{self.target}/{member.name}"
        digest, size, crc = hashlib.sha256(), 0, 0
        try:
            self._make_folder(path.rpartition("/")[0])
            # Exclusive: two members must never write one file, whatever the file system folds
            # together. No buffered file object: it costs more than a small image's own bytes.
            out = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o644)
            try:
                for chunk in self._bytes(descriptor, member):
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
        return Unpacked(member.name, size, digest.hexdigest())

    def _make_folder(self, folder: str) -> None:
        if folder not in self._folders:
            Path(folder).mkdir(parents=True, exist_ok=True)
            self._folders.add(folder)

    def _bytes(self, descriptor: int, member: Member) -> Iterator[Buffer]:
        raw = self._raw(descriptor, member)
        if member.method == zipfile.ZIP_STORED:
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

    def _raw(self, descriptor: int, member: Member) -> Iterator[memoryview]:
        """Yield the packed bytes in a buffer that the next turn fills anew."""
        buffer, at = self._buffer(), member.at
        # The header and, of a small member, all the rest come in one read.
        most = at + member.head + HEAD + member.packed
        there = self._read(descriptor, buffer, at, min(most, member.end))
        start = member.start(buffer[:there])
        end = start + member.packed
        first = buffer[start - at : min(there, end - at)]
        if first:
            yield first
        at = max(start, at + there)
        while at < end:
            read = self._read(descriptor, buffer, at, end)
            yield buffer[:read]
            at += read

    def _read(self, descriptor: int, buffer: memoryview, at: int, end: int) -> int:
        if self._stopped.is_set():
            raise EOFError("stopped")
        read = os.preadv(descriptor, [buffer[: end - at]], at)
        if not read:
            raise EOFError("the archive ends early")
        return read

    def _buffer(self) -> memoryview:
        # One for each thread: a fresh megabyte for every image would be fetched from the system.
        if not hasattr(self._mine, "buffer"):
            self._mine.buffer = memoryview(bytearray(CHUNK))
        buffer: memoryview = self._mine.buffer
        return buffer


def _write(descriptor: int, chunk: Buffer) -> None:
    view = memoryview(chunk)
    while view:
        view = view[os.write(descriptor, view) :]

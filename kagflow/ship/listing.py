"""List a zip archive's members: read by zipfile, judged as a whole before a byte is written."""

from __future__ import annotations

import fnmatch
import re
import stat
import struct
import unicodedata
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from kagflow.errors import DataError

# A member or archive that unpacks to more than this many times its size, and is no small one.
RATIO, SMALL = 200, 1 << 20
MEMBERS = 1_000_000
LONGEST_PART, LONGEST_NAME = 255, 1024  # bytes
REGULAR = {0, stat.S_IFREG}
METHODS = {zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED}
_ODD = re.compile(r"[\\:\x00-\x1f]")
# signature, version, flags, method, time, date, crc, packed, unpacked, name bytes, extra bytes
_LOCAL = struct.Struct("<4sHHHHHIIIHH")
_ENCRYPTED, _SIZES_FOLLOW, _UTF8 = 0x1, 0x8, 0x800
_IN_EXTRA = 0xFFFFFFFF


@dataclass(frozen=True, slots=True)
class Member:
    """Say where in the archive a member is, and what its packed bytes must become."""

    name: str
    raw: bytes  # its name as its own header must have it
    at: int  # of its own header
    end: int  # where the next member's header, or the listing, begins
    packed: int
    size: int
    crc: int
    method: int

    @property
    def head(self) -> int:
        """Count the bytes that its own header has at least."""
        return _LOCAL.size + len(self.raw)

    def start(self, head: bytes | memoryview) -> int:
        """Return where the packed bytes begin, given the first bytes of its own header.

        Raises DataError where that header disagrees with the listing.
        """
        if len(head) < self.head or bytes(head[:4]) != b"PK\3\4":
            raise self.fault("has no header where the listing says")
        _, _, flags, method, _, _, crc, packed, size, names, extra = _LOCAL.unpack_from(head)
        says = [(method, self.method), (flags & _ENCRYPTED, 0)]
        if not flags & _SIZES_FOLLOW:
            says += [(crc, self.crc), (packed, self.packed), (size, self.size)]
        says = [(mine, listed) for mine, listed in says if mine != _IN_EXTRA]
        says.append((names, len(self.raw)))
        if bytes(head[_LOCAL.size : self.head]) != self.raw or any(a != b for a, b in says):
            raise self.fault("has a header that disagrees with the listing")
        start = int(self.at + self.head + extra)
        if start + self.packed > self.end:
            raise self.fault("shares bytes with another member")
        return start

    def fault(self, what: str) -> DataError:
        """Return the error that names this member."""
        return _fault_of(self.name, what)


def members(path: Path, *, only: str | None = None) -> list[Member]:
    """List the files of an archive, or those whose path matches `only`, e.g. `train_images/*`.

    Only the listing at the archive's end is read. Raises DataError where it is none, or where any
    member is unsafe.
    """
    listed = _members(path)
    if only is None:
        return listed
    found = [member for member in listed if fnmatch.fnmatchcase(member.name, only)]
    if not found:
        raise DataError(
            f"no file of the archive matches '{only}'",
            hint=f"its {len(listed)} files begin with {', '.join(m.name for m in listed[:3])}",
        )
    return found


def names_fault(names: Sequence[str]) -> bool:
    """Tell whether any of these paths must not be written below a folder, or two are one file."""
    twice = len({_folded(name) for name in names}) < len(names)
    return twice or any(_leaves(name) or _too_long(name) for name in names)


def _members(path: Path) -> list[Member]:
    try:
        with zipfile.ZipFile(path) as archive:
            listed, end = archive.infolist(), archive.start_dir
        size = path.stat().st_size
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError, struct.error) as error:
        raise DataError(f"{path.name} is not a whole zip archive: {error}") from None
    if len(listed) > MEMBERS:
        raise DataError(f"the archive lists {len(listed)} members, {MEMBERS} at most are read")
    _refuse_faults(listed, size)
    found: list[Member] = []
    # From the last to the first, each ends where the one after it begins.
    for info in sorted(listed, key=lambda one: one.header_offset, reverse=True):
        member = _member(info, end)
        if member.at + member.head + member.packed > end:
            raise member.fault("shares bytes with another member")
        end = member.at
        # Of a folder nothing is made.
        if not info.is_dir():
            found.append(member)
    return found[::-1]


def _member(info: zipfile.ZipInfo, end: int) -> Member:
    return Member(
        info.filename,
        info.orig_filename.encode("utf-8" if info.flag_bits & _UTF8 else "cp437"),
        info.header_offset,
        end,
        info.compress_size,
        info.file_size,
        info.CRC,
        info.compress_type,
    )


def _refuse_faults(listed: list[zipfile.ZipInfo], archive_size: int) -> None:
    seen: set[str] = set()
    for info in listed:
        fault, key = _fault(info), _folded(info.filename)
        if fault or key in seen:
            raise _fault_of(info.filename, fault or "is listed twice")
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
    # Windows separators and drives, and bytes below space, never occur in a competition's data;
    # "a//b" and "./a" are second names of another path, "/a" begins at the root.
    parts = name.removesuffix("/").split("/")
    return _ODD.search(name) is not None or not {"", ".", ".."}.isdisjoint(parts)


def _too_long(name: str) -> bool:
    raw = name.encode(errors="surrogateescape")
    return len(raw) >= LONGEST_NAME or max(map(len, raw.split(b"/"))) > LONGEST_PART


def _folded(name: str) -> str:
    # What one file system tells apart, another one folds together.
    return unicodedata.normalize("NFC", name.rstrip("/")).casefold()


def _fault_of(name: str, what: str) -> DataError:
    return DataError(f"archive member {name[:200]!r} {what}")

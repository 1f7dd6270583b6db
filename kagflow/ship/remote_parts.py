"""Unfinished bytes of one download on disk: of which version, and which of them are there."""

from __future__ import annotations

import json
import os
import threading
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Self

from kagflow import durable

NOTE = 64 << 20  # bytes after which progress is written down: what a kill loses at most


@dataclass(frozen=True)
class Version:
    """Name one version of a file: `validator` is a strong ETag or Last-Modified, "" for none."""

    size: int | None
    validator: str
    md5: str = ""
    crc32c: str = ""

    @property
    def resumable(self) -> bool:
        """Tell whether later bytes can be known to belong to this version."""
        return bool(self.size and self.validator)

    @property
    def unchecked(self) -> bool:
        """Tell whether the server sent no checksum, so that the bytes are not read once more."""
        return not (self.md5 or self.crc32c)

    def same(self, other: Version | None) -> bool:
        """Tell whether both name the same bytes for certain."""
        mine = (self.size, self.validator)
        return self.resumable and other is not None and mine == (other.size, other.validator)


@dataclass
class Gap:
    """Count what is missing: bytes `at` up to `end`, None for up to the end of the answer."""

    at: int
    end: int | None

    @property
    def closed(self) -> bool:
        """Tell whether nothing is missing any more."""
        return self.end is not None and self.at >= self.end


@dataclass
class Part:
    """Write bytes into `<target>.part`, and note in `<target>.part.json` which are there."""

    target: Path
    version: Version
    gaps: list[Gap]
    gained: int = field(default=0, init=False)
    _descriptor: int = field(default=-1, init=False)
    _unnoted: int = field(default=0, init=False)
    _lock: threading.Lock = field(default_factory=threading.Lock, init=False)
    _noting: threading.Lock = field(default_factory=threading.Lock, init=False)

    @classmethod
    def begin(cls, target: Path, version: Version, streams: int, *, tail: int = 0) -> Self:
        """Start anew; the bytes are shared out over so many gaps, the last `tail` bytes apart."""
        cls.drop(target)
        size = version.size
        cuts = [size * at // streams for at in range(streams + 1)] if size is not None else [0]
        if size is not None and streams > 1:
            cuts.insert(-1, size - tail)
        ends: list[int | None] = [*cuts[1:]] or [None]
        part = cls(target, version, [Gap(at, end) for at, end in zip(cuts, ends, strict=False)])
        part._open(os.O_CREAT | os.O_TRUNC)
        # A later gap begins beyond the bytes that are there.
        os.ftruncate(part._descriptor, part.gaps[-1].at)
        part.note()
        return part

    @classmethod
    def find(cls, target: Path) -> Self | None:
        """Return what an earlier download left, None where it cannot be continued."""
        try:
            noted = json.loads(_note_path(target).read_text())
            version = Version(**noted["version"])
            gaps = [Gap(int(at), int(end)) for at, end in noted["gaps"]]
            there = part_path(target).stat().st_size
        except (OSError, ValueError, KeyError, TypeError):
            return None
        started = [gap.at for gap in gaps if gap.at] or [0]
        whole = version.resumable and gaps and gaps[-1].end == version.size
        if not whole or there < max(started):
            return None
        part = cls(target, version, gaps)
        part._open(0)
        return part

    @staticmethod
    def drop(target: Path) -> None:
        """Remove what an earlier download left."""
        _note_path(target).unlink(missing_ok=True)
        part_path(target).unlink(missing_ok=True)

    @property
    def missing(self) -> int:
        """Count the bytes that are still to come; 0 where the size is not known."""
        return sum(gap.end - gap.at for gap in self.gaps if gap.end is not None)

    @property
    def done(self) -> bool:
        """Tell whether every gap is closed."""
        return all(gap.closed for gap in self.gaps)

    def write(self, gap: Gap, chunk: bytes) -> None:
        """Put bytes where the gap begins."""
        view = memoryview(chunk)
        while view:
            written = os.pwrite(self._descriptor, view, gap.at)
            gap.at += written
            view = view[written:]
        with self._lock:
            self.gained += len(chunk)
            self._unnoted += len(chunk)
            due = self._unnoted >= NOTE
            self._unnoted = 0 if due else self._unnoted
        if due:
            self.note()

    def note(self) -> None:
        """Write down which bytes are there, after they are."""
        with self._noting:
            gaps = [(gap.at, gap.end) for gap in self.gaps]
            os.fdatasync(self._descriptor)
            noted = {"version": asdict(self.version), "gaps": gaps}
            durable.write_json(_note_path(self.target), noted)

    def close(self) -> None:
        """Note what is there and let go of the file."""
        try:
            self.note()
        finally:
            os.close(self._descriptor)

    def keep(self, *, mark: bool) -> None:
        """Give the whole file its name; `mark` leaves a note of its version beside it."""
        if mark:
            durable.write_json(_mark_path(self.target), asdict(self.version))
        part_path(self.target).replace(self.target)
        durable.fsync_dir(self.target.parent)
        _note_path(self.target).unlink(missing_ok=True)

    @property
    def descriptor(self) -> int:
        """The open file, to read from what is there."""
        return self._descriptor

    @property
    def path(self) -> Path:
        """Where the bytes are until they are whole."""
        return part_path(self.target)

    def _open(self, flags: int) -> None:
        self._descriptor = os.open(self.path, os.O_RDWR | os.O_NOFOLLOW | flags, 0o644)


def finished(target: Path) -> Version | None:
    """Return the version of a file that is here whole and marked, None where there is none."""
    try:
        version = Version(**json.loads(_mark_path(target).read_text()))
        return version if target.stat().st_size == version.size else None
    except (OSError, ValueError, TypeError):
        return None


def forget(target: Path) -> None:
    """Remove a file, its mark and whatever a broken download of it left."""
    target.unlink(missing_ok=True)
    _mark_path(target).unlink(missing_ok=True)
    Part.drop(target)
    for stray in target.parent.glob(f".{target.name}.*.tmp"):
        stray.unlink(missing_ok=True)


def part_path(target: Path) -> Path:
    """Where the bytes of a file wait until they are whole."""
    return target.with_name(target.name + ".part")


def _note_path(target: Path) -> Path:
    return target.with_name(target.name + ".part.json")


def _mark_path(target: Path) -> Path:
    return target.with_name(target.name + ".json")

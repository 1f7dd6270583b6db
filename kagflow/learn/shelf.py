"""One folder of copies and the list of what in it counts, with hashes."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path
from typing import Any

from kagflow import durable
from kagflow.errors import DataError

MANIFEST = "mirror.json"
TRIES = 3
_BLOCK = 1 << 22


class Torn(Exception):  # noqa: N818 - a file's state, caught where it is raised for
    """A file is not what was said of it."""


class Shelf:
    """Put files into a folder and take them out; `files` maps names to their facts.

    A file's facts are the hashes that it may have, of which it has one, and size and time of the
    source that it was copied from. A list that cannot be read is no list: `legible` is False.
    """

    def __init__(self, place: Path) -> None:
        self.place = place
        self.files: dict[str, dict[str, Any]] = {}
        self.legible = True
        path = place / MANIFEST
        if path.is_file():
            try:
                self.files = dict(json.loads(path.read_text())["files"])
            except (ValueError, KeyError, TypeError):
                self.legible = False

    def put(self, name: str, source: Path, *, sidecar: str | None = None) -> bool:
        """Copy a file, read it back and list it; False where it is here already.

        `sidecar` is the hash that it must have. Raises Torn where it has another, FileNotFoundError
        where it has gone, and DataError where the copy is not what was written, TRIES times.
        """
        found = source.stat()
        stamp = [found.st_size, found.st_mtime_ns]
        known = self.files.get(name, {})
        if known and (self.place / name).is_file():
            if known["stamp"] == stamp:
                return False
            if known["stamp"] and known["sha256"] == [durable.sha256_file(source)]:
                # As on a new machine, to which it was brought back.
                self._list(name, known | {"stamp": stamp})
                return False
        for _ in range(TRIES):
            with durable.replacing(self.place / name) as beside:
                digest = _copy(source, beside)
                if sidecar not in (None, digest):
                    raise Torn(name)
                before = known.get("sha256", [])[-1:]
                self._list(name, {"sha256": [*before, digest], "stamp": None})
            if _read_back(self.place / name) == digest:
                self._list(name, {"sha256": [digest], "stamp": stamp})
                return True
        raise DataError(
            f"{self.place / name} is not what was written to it",
            hint="mount the storage again, or take another",
        )

    def take(self, name: str, target: Path) -> None:
        """Copy a file out, whole or not at all; raises Torn where it is not what was listed."""
        with durable.replacing(target) as beside:
            if not self.says(name, _copy(self.place / name, beside)):
                raise Torn(name)

    def tidy(self) -> None:
        """Take away what a kill left half-written; one process alone writes here."""
        for left in self.place.rglob(".*.tmp"):
            left.unlink(missing_ok=True)

    def drop(self, name: str) -> None:
        """Take a file off the list, then away."""
        del self.files[name]
        self._write()
        (self.place / name).unlink(missing_ok=True)

    def says(self, name: str, digest: str) -> bool:
        """Tell whether a listed file may have this hash."""
        return digest in self.files[name]["sha256"]

    def whole(self, name: str) -> bool:
        """Tell whether a listed file is there and verifies."""
        path = self.place / name
        return path.is_file() and self.says(name, _read_back(path))

    def _list(self, name: str, facts: dict[str, Any]) -> None:
        self.files[name] = facts
        self._write()

    def _write(self) -> None:
        durable.write_json(self.place / MANIFEST, {"files": self.files})


def _copy(source: Path, target: Path) -> str:
    """Copy a file's bytes and return their SHA-256."""
    digest = hashlib.sha256()
    with source.open("rb") as read, target.open("wb") as write:
        while block := read.read(_BLOCK):
            digest.update(block)
            write.write(block)
    return digest.hexdigest()


def _read_back(path: Path) -> str:
    """Hash a file as the disk has it, where the system lets go of what it remembers."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        if hasattr(os, "posix_fadvise"):
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        while block := file.read(_BLOCK):
            digest.update(block)
    return digest.hexdigest()

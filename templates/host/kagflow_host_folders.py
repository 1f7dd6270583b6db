"""Folders that are named by their content: what they lack, whether they arrived whole."""

from __future__ import annotations

import contextlib
import os
import shutil
from pathlib import Path
from typing import Any

from kagflow_host_common import inside, read_json, sha256, write_json

Files = dict[str, tuple[int, str]]


def lacking(home: str, folder: str, files: Files) -> dict[str, Any]:
    """Return which of `files` {name: (bytes, sha256)} a folder lacks; link what lies elsewhere.

    The folder grows beside its place, which `settle` gives it.
    """
    final = inside(home, folder)
    if final.is_dir():
        return {"there": True, "names": [], "staging": "", "free": 0}
    staging = _staging(final)
    staging.mkdir(parents=True, exist_ok=True)
    known, names = _known(final.parent), []
    for name, (size, digest) in files.items():
        target = inside(staging, name)
        if _same(target, size, digest):
            continue
        source = known.get(digest)
        if source is None or not _same(source, size, digest):
            names.append(name)
            continue
        target.parent.mkdir(parents=True, exist_ok=True)
        target.unlink(missing_ok=True)
        link(source, target)
    free = shutil.disk_usage(staging).free
    return {"there": False, "names": names, "staging": str(staging), "free": free}


def settle(home: str, folder: str, files: Files) -> dict[str, Any]:
    """Verify a folder that was sent and give it its name; say which files are not as sent."""
    final = inside(home, folder)
    staging = _staging(final)
    if final.is_dir():
        return {"wrong": []}
    wrong = [
        name for name, (size, digest) in files.items() if not _same(staging / name, size, digest)
    ]
    for name in wrong:
        inside(staging, name).unlink(missing_ok=True)
    if wrong:
        return {"wrong": wrong}
    for path in list(staging.rglob("*")):
        if not path.is_dir() and path.relative_to(staging).as_posix() not in files:
            path.unlink()
    # Beside it: the folder holds what was sent, and nothing else.
    write_json(_list(final), files)
    os.sync()
    try:
        staging.rename(final)
    except OSError:
        # Two may have sent the same: the first one's serves.
        if not final.is_dir():
            raise
        shutil.rmtree(staging, ignore_errors=True)
    return {"wrong": []}


def sums(home: str, folder: str) -> dict[str, Any]:
    """Return {name: (bytes, sha256)} of a folder's files; none where there is no folder."""
    root, found = inside(home, folder), {}
    for path in sorted(root.rglob("*")):
        # What begins with a dot is a lock, or half-written.
        if path.is_file() and not path.is_symlink() and not path.name.startswith("."):
            found[path.relative_to(root).as_posix()] = (path.stat().st_size, sha256(path))
    return {"files": found, "root": str(root)}


def exists(home: str, name: str) -> dict[str, Any]:
    """Tell whether a file or folder is there."""
    return {"there": inside(home, name).exists()}


def link(source: Path, target: Path) -> None:
    """Give a file a second name, or copy it where the file system has no links."""
    try:
        os.link(source, target)
    except OSError:
        with contextlib.suppress(FileExistsError):
            shutil.copyfile(source, target)


def _known(shelf: Path) -> dict[str, Path]:
    """Return which file holds a content, of all folders beside each other."""
    found: dict[str, Path] = {}
    for folder in (one for one in shelf.iterdir() if one.is_dir()):
        for name, (_, digest) in (read_json(_list(folder)) or {}).items():
            found.setdefault(digest, folder / name)
    return found


def _same(path: Path, size: int, digest: str) -> bool:
    try:
        return path.stat().st_size == size and sha256(path) == digest
    except OSError:
        return False


def _list(final: Path) -> Path:
    return final.parent / f".{final.name}.files"


def _staging(final: Path) -> Path:
    return final.parent / f".{final.name}.part"

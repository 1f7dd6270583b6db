"""Write beside, fsync, rename: the one way to a file that matters. Travels to Kaggle."""

from __future__ import annotations

import contextlib
import ctypes
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any


def fsync_dir(path: Path) -> None:
    """Flush a folder's entries to disk, where the file system can."""
    # A rename is durable only once its folder is; some network file systems refuse the call.
    with contextlib.suppress(OSError):
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield a sibling path to write; on success it replaces `path`, on failure it goes."""
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".tmp", dir=path.parent)
    os.close(descriptor)
    beside = Path(name)
    try:
        yield beside
        _fsync_file(beside)
        beside.chmod(0o644)
        beside.replace(path)
        fsync_dir(path.parent)
    except BaseException:
        beside.unlink(missing_ok=True)
        raise


def write_bytes(path: Path, data: bytes) -> None:
    """Write a whole file or nothing."""
    with replacing(path) as beside:
        beside.write_bytes(data)


def write_text(path: Path, text: str) -> None:
    r"""Write a whole UTF-8 file or nothing; `\n` stays as it is."""
    write_bytes(path, text.encode())


def write_json(path: Path, value: Any) -> None:
    """Write JSON with sorted keys, so that equal values give equal bytes."""
    write_text(path, json.dumps(value, indent=1, sort_keys=True, ensure_ascii=False) + "\n")


@contextlib.contextmanager
def staging(final: Path) -> Iterator[Path]:
    """Yield an empty sibling folder that becomes `final` on success; `final` must not exist."""
    if final.exists():
        raise FileExistsError(final)
    final.parent.mkdir(parents=True, exist_ok=True)
    beside = Path(tempfile.mkdtemp(prefix=f".{final.name}.", suffix=".staging", dir=final.parent))
    try:
        yield beside
        beside.chmod(0o755)
        fsync_tree(beside)
        beside.rename(final)
        fsync_dir(final.parent)
    except BaseException:
        shutil.rmtree(beside, ignore_errors=True)
        raise


def fsync_tree(folder: Path) -> None:
    """Flush a folder and all below it to disk.

    One call for the whole file system where there is one (Linux): flushing ten thousand files one
    by one takes ten times as long.
    """
    if _syncfs(folder):
        return
    for inner, _, names in os.walk(folder):
        for name in names:
            _fsync_file(Path(inner, name))
        fsync_dir(Path(inner))


def sha256_file(path: Path) -> str:
    """Return the hexadecimal SHA-256 of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _syncfs(folder: Path) -> bool:
    call = getattr(ctypes.CDLL(None, use_errno=True), "syncfs", None)
    if call is None:
        return False
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        if call(descriptor):
            code = ctypes.get_errno()
            raise OSError(code, os.strerror(code), str(folder))
    finally:
        os.close(descriptor)
    return True


def _fsync_file(path: Path) -> None:
    with path.open("rb+") as file:
        os.fsync(file.fileno())

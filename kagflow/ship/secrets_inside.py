"""What a file really holds: itself, its archive's members, its text in another coding."""

from __future__ import annotations

import base64
import binascii
import contextlib
import io
import re
import tarfile
import zipfile
import zlib
from collections.abc import Iterator

_ZIP, _GZIP, _TAR = b"PK\x03\x04", b"\x1f\x8b", b"ustar"
_TAR_AT = 257
# Nobody hides a key deeper, and a bomb is not worth following.
_DEPTH = 4
_MOST_BYTES = 1 << 31
# Long enough for a key, with its padding; notebooks and secrets of clusters are written so.
_LETTER = rb"[A-Za-z0-9+/]"
_BASE64 = re.compile(
    rb"(?:%b{60,76}(?:\r?\n|\\n))+%b{0,76}={0,2}|%b{24,}={0,2}" % (_LETTER, _LETTER, _LETTER)
)
_BREAKS = re.compile(rb"\r?\n|\\n")
# Weights are no text, and base64 that long is a picture.
_TEXT_BYTES = 32 << 20
_BLOCK_CHARS = 1 << 14


def views(data: bytes, where: str, depth: int = 0) -> Iterator[tuple[str, bytes]]:
    """Yield (place, bytes) of everything to be searched, what is inside first."""
    if depth < _DEPTH:
        for name, inner in _members(data):
            yield from views(inner, f"{where}/{name}" if name else where, depth + 1)
    yield where, data
    if data.count(b"\0", 0, 4096) * 3 > min(len(data), 4096):
        # UTF-16 and UTF-32 put zeros between the letters.
        yield where, data.replace(b"\0", b"")
    if len(data) <= _TEXT_BYTES:
        yield from _decoded(data, where)


def _decoded(data: bytes, where: str) -> Iterator[tuple[str, bytes]]:
    for match in _BASE64.finditer(data):
        text = _BREAKS.sub(b"", match.group()).rstrip(b"=")
        if len(text) > _BLOCK_CHARS:
            continue
        # Letters before it may belong to something else.
        for start in range(4):
            whole = text[start : start + (len(text) - start) // 4 * 4]
            rest = text[start + len(whole) :]
            padding = b"=" * (-len(rest) % 4) if len(rest) > 1 else b""
            with contextlib.suppress(binascii.Error):
                yield where, base64.b64decode(whole + rest[: len(rest) if padding else 0] + padding)


def _members(data: bytes) -> Iterator[tuple[str, bytes]]:
    if data.startswith(_ZIP):
        yield from _zipped(data)
    elif data.startswith(_GZIP):
        unpacked = _gunzipped(data)
        if unpacked:
            yield "", unpacked
    elif data[_TAR_AT : _TAR_AT + len(_TAR)] == _TAR:
        yield from _tarred(data)


def _zipped(data: bytes) -> Iterator[tuple[str, bytes]]:
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            for info in archive.infolist():
                if info.file_size <= _MOST_BYTES:
                    yield info.filename, archive.read(info)
    except (zipfile.BadZipFile, RuntimeError, NotImplementedError, zlib.error, EOFError):
        # Not readable as an archive here: its own bytes are searched all the same.
        return


def _gunzipped(data: bytes) -> bytes:
    try:
        return zlib.decompressobj(wbits=31).decompress(data, _MOST_BYTES)
    except zlib.error:
        return b""


def _tarred(data: bytes) -> Iterator[tuple[str, bytes]]:
    try:
        with tarfile.open(fileobj=io.BytesIO(data)) as archive:
            for info in archive:
                file = archive.extractfile(info) if info.isreg() else None
                if file is not None and info.size <= _MOST_BYTES:
                    yield info.name, file.read()
    except (tarfile.TarError, EOFError):
        return

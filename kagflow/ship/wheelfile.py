"""Write, rebuild and read wheel files, equal input giving equal bytes."""

from __future__ import annotations

import base64
import csv
import hashlib
import io
import json
import os
import sys
import zipfile
from collections.abc import Iterable, Iterator, Mapping
from email.message import Message
from email.parser import BytesParser
from importlib.metadata import Distribution, PackagePath
from pathlib import Path, PurePosixPath

from packaging.tags import Tag, parse_tag
from packaging.utils import InvalidWheelFilename, canonicalize_name, parse_wheel_filename

from kagflow import durable
from kagflow.errors import DataError, LocalError

# A zip holds no earlier day.
EPOCH = (1980, 1, 1, 0, 0, 0)
# What an installer adds beside the files of the wheel itself.
ADDED = frozenset({"INSTALLER", "REQUESTED", "RECORD", "direct_url.json"})


def write_wheel(
    folder: Path, *, name: str, version: str, tag: str, files: Mapping[str, bytes]
) -> Path:
    """Write a wheel of `files` (archive path -> bytes) and return its path.

    Nothing is compressed: deflate's output differs between builds of zlib. RECORD is added.
    """
    stem = f"{canonicalize_name(name).replace('-', '_')}-{version}"
    info = next((Path(path).parts[0] for path in files if path.endswith(".dist-info/WHEEL")), None)
    if info is None:
        raise DataError(f"{name} {version}: no WHEEL among its files")
    record = f"{info}/RECORD"
    everything = {**files, record: _record(files, record)}
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as archive:
        # The dist-info comes last, as PEP 427 recommends.
        for path in sorted(everything, key=lambda path: (path.startswith(info), path)):
            entry = zipfile.ZipInfo(path, EPOCH)
            entry.create_system = 3
            entry.external_attr = 0o100644 << 16
            archive.writestr(entry, everything[path])
    wheel = folder / f"{stem}-{tag}.whl"
    durable.write_bytes(wheel, buffer.getvalue())
    return wheel


def pure_tag(distribution: Distribution) -> str | None:
    """Return the file name's tag of an installed pure Python distribution, None when compiled."""
    tags = _installed_tags(distribution)
    if not tags or any((tag.abi, tag.platform) != ("none", "any") for tag in tags):
        return None
    return _compressed(tags)


def _installed_tags(distribution: Distribution) -> list[Tag]:
    wheel = BytesParser().parsebytes((distribution.read_text("WHEEL") or "").encode())
    return [tag for text in wheel.get_all("Tag", []) for tag in parse_tag(text)]


def _compressed(tags: Iterable[Tag]) -> str | None:
    parts = [(tag.interpreter, tag.abi, tag.platform) for tag in tags]
    return "-".join(".".join(sorted(set(part))) for part in zip(*parts, strict=True)) or None


def rebuild(distribution: Distribution, folder: Path, *, compiled: bool = False) -> Path:
    """Make the wheel again from which a pure Python distribution was installed.

    `compiled` takes any, for this machine's own Python. Raises LocalError for another compiled or
    an editable one, DataError where a file has changed since.
    """
    label = f"{distribution.name} {distribution.version}"
    tag = _compressed(_installed_tags(distribution)) if compiled else pure_tag(distribution)
    if tag is None:
        raise LocalError(f"{label} is compiled here: it can't be rebuilt for another Python")
    if (
        json.loads(distribution.read_text("direct_url.json") or "{}")
        .get("dir_info", {})
        .get("editable")
    ):
        raise LocalError(
            f"{label} is installed in editable mode: its files are not on record",
            hint=f"install {distribution.name} without -e",
        )
    files = {path: _unchanged(entry, label) for path, entry in _recorded(distribution, label)}
    return write_wheel(
        folder, name=distribution.name, version=distribution.version, tag=tag, files=files
    )


def read_metadata(wheel: Path, *, whole: bool = True) -> Message:
    """Return a wheel's METADATA after checking every file against its RECORD, if `whole`.

    Raises DataError when the archive is damaged.
    """
    try:
        with zipfile.ZipFile(wheel) as archive:
            info = next(n for n in archive.namelist() if n.endswith(".dist-info/METADATA"))
            if whole:
                _check_record(wheel, archive, info.replace("METADATA", "RECORD"))
            return BytesParser().parsebytes(archive.read(info))
    except (zipfile.BadZipFile, KeyError, StopIteration, ValueError) as error:
        raise DataError(f"{wheel} is no whole wheel: {error!r}", hint=f"rm {wheel}") from None


def _check_record(wheel: Path, archive: zipfile.ZipFile, record: str) -> None:
    for name, digest, _ in csv.reader(io.StringIO(archive.read(record).decode())):
        if digest and digest != _digest(archive.read(name), digest.partition("=")[0]):
            raise DataError(f"{wheel}: {name} is not what RECORD says", hint=f"rm {wheel}")


def wheel_tags(wheel: Path) -> tuple[str, str, frozenset[Tag]] | None:
    """Return normalised name, version and tags from a file name, None when it is no wheel's."""
    try:
        name, version, _, tags = parse_wheel_filename(wheel.name)
    except InvalidWheelFilename:
        return None
    return str(name), str(version), tags


def _recorded(distribution: Distribution, label: str) -> Iterator[tuple[str, PackagePath]]:
    if not distribution.files:
        raise LocalError(
            f"{label} has no RECORD of its files",
            hint=f"pip install --force-reinstall {label.replace(' ', '==')}",
        )
    for entry in distribution.files:
        path = PurePosixPath(entry.as_posix())
        info = path.parts[0].endswith(".dist-info")
        if path.suffix == ".pyc" or (info and path.name in ADDED):
            continue
        if path.parts[0] != "..":
            yield str(path), entry
            continue
        # Scripts are made again from entry_points.txt; what else lies outside is data.
        outside = Path(os.path.normpath(str(entry.locate()))).relative_to(Path(sys.prefix))
        if outside.parts[0] not in {"bin", "Scripts"}:
            name = canonicalize_name(distribution.name).replace("-", "_")
            yield f"{name}-{distribution.version}.data/data/{outside.as_posix()}", entry


def _unchanged(entry: PackagePath, label: str) -> bytes:
    path = Path(str(entry.locate()))
    advice = f"pip install --force-reinstall --no-deps {label.replace(' ', '==')}"
    try:
        data = path.read_bytes()
    except OSError as error:
        raise DataError(f"{label}: {entry} can't be read: {error}", hint=advice) from None
    if entry.hash and _digest(data, entry.hash.mode) != f"{entry.hash.mode}={entry.hash.value}":
        raise DataError(f"{label}: {entry} was changed after installation", hint=advice)
    return data


def _record(files: Mapping[str, bytes], record: str) -> bytes:
    lines = io.StringIO()
    rows = csv.writer(lines, lineterminator="\n")
    rows.writerows(
        (path, _digest(files[path], "sha256"), len(files[path])) for path in sorted(files)
    )
    rows.writerow((record, "", ""))
    return lines.getvalue().encode()


def _digest(data: bytes, algorithm: str) -> str:
    raw = hashlib.new(algorithm, data).digest()
    return f"{algorithm}={base64.urlsafe_b64encode(raw).rstrip(b'=').decode()}"

"""The two halves of a pack, each a flat folder that becomes a dataset of its own.

`env` holds what the kernel runs, wheels and code; `weights` what it knows: weights, assets, stored
answers, config. A new version of a dataset replaces all its files, so that a new weight in one
dataset with the wheels would send the wheels again. Each half has a manifest, which is also the
mark by which the kernel finds it wherever Kaggle mounts it.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kagflow import durable
from kagflow.errors import DataError

SCHEMA = 2
MANIFEST = "manifest.json"
ENV, WEIGHTS = "env", "weights"
PARTS = (ENV, WEIGHTS)


@dataclass(frozen=True)
class Part:
    """Name one half of a finished pack; `hash` covers all that its manifest says."""

    name: str
    path: Path
    hash: str
    manifest: dict[str, Any]

    @property
    def files(self) -> tuple[Path, ...]:
        """All files that are uploaded, the manifest last."""
        return tuple(self.path / name for name in [*sorted(self.manifest["files"]), MANIFEST])

    @property
    def bytes(self) -> int:
        """Size of all files, in bytes."""
        return sum(file.stat().st_size for file in self.files)


def seal(name: str, files: Mapping[str, Any], **facts: Any) -> dict[str, Any]:
    """Return the manifest of one half: its files with SHA-256 and bytes, facts, and its hash."""
    return sealed({"schema": SCHEMA, "part": name, "files": dict(files), **facts}, "hash")


def seal_pack(hashes: Mapping[str, str]) -> dict[str, Any]:
    """Return the manifest of a whole pack: what its halves are, by hash."""
    return sealed({"schema": SCHEMA, "parts": dict(hashes)}, "pack")


def sealed(body: Mapping[str, Any], key: str) -> dict[str, Any]:
    """Return a manifest with its hash under `key`: 16 hex digits of the SHA-256 of all else."""
    rest = {name: value for name, value in body.items() if name != key}
    digest = hashlib.sha256(json.dumps(rest, sort_keys=True).encode()).hexdigest()
    return {**rest, key: digest[:16]}


def write_part(folder: Path, sources: Mapping[str, Path], manifest: Mapping[str, Any]) -> None:
    """Copy the files of one half into a new folder, its manifest last.

    Raises DataError where a file is not, or no longer, as its manifest says.
    """
    folder.mkdir()
    for name, source in sources.items():
        shutil.copyfile(source, folder / name, follow_symlinks=False)
        # What is uploaded is what was scanned and hashed, though the source may move on.
        if durable.sha256_file(folder / name) != manifest["files"][name]["sha256"]:
            raise DataError(f"{source} changed while it was packed", hint="pack again")
    durable.write_json(folder / MANIFEST, manifest)


def read_part(path: Path, name: str) -> Part:
    """Read one half of a pack and check every byte of it against its manifest.

    Raises DataError naming what is missing, changed or not on the manifest.
    """
    manifest = read_sealed(path, "hash", ("part", "files"))
    if manifest["part"] != name:
        raise DataError(f"{path} is the part '{manifest['part']}', not '{name}'", hint=again(path))
    present = {file.name for file in path.iterdir()} - {MANIFEST}
    if present != set(manifest["files"]):
        odd = ", ".join(sorted(present ^ set(manifest["files"])))
        raise DataError(f"{path}: not as the manifest lists it: {odd}", hint=again(path))
    for file, facts in manifest["files"].items():
        if durable.sha256_file(path / file) != facts["sha256"]:
            raise DataError(f"{path / file} is not the file that was packed", hint=again(path))
    return Part(name, path, manifest["hash"], manifest)


def read_sealed(folder: Path, key: str, others: Iterable[str]) -> dict[str, Any]:
    """Read a folder's manifest, whose `key` is its own hash and which has all `others`.

    Raises DataError where it can't be read, lacks one of them, was changed, or is the one manifest
    of a pack as an earlier kagflow made it.
    """
    try:
        manifest = dict(json.loads((folder / MANIFEST).read_text()))
        if manifest["schema"] < SCHEMA:
            raise DataError(
                f"{folder} was packed by an earlier kagflow, as one dataset",
                hint="kagflow pack makes it anew, as one dataset for code and one for weights",
            )
        whole = {name: manifest[name] for name in (key, *others)}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(f"{folder} is no whole pack: {error!r}", hint=again(folder)) from None
    if sealed(manifest, key)[key] != whole[key]:
        raise DataError(f"{folder}: the manifest was changed", hint=again(folder))
    return manifest


def again(folder: Path) -> str:
    """Return the mend for a damaged pack or half of one."""
    pack = folder.parent if folder.name in PARTS else folder
    return f"remove {pack} and pack again"

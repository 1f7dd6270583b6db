"""The list of a download's files with their hashes: what makes a folder a whole fetch."""

from __future__ import annotations

import hashlib
import json
import os
import stat
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from kagflow import durable
from kagflow.errors import DataError
from kagflow.progress import QUIET, Progress
from kagflow.ship import archive
from kagflow.ship.archive import Unpacked

SCHEMA = 1
MANIFEST = "manifest.json"


def read_manifest(data: Path) -> dict[str, Any]:
    """Return a fetched folder's manifest; raise DataError where it is not a whole fetch."""
    try:
        manifest = json.loads((data / MANIFEST).read_text())
        if manifest["schema"] == SCHEMA and manifest["files"]:
            return dict(manifest)
    except (OSError, ValueError, KeyError, TypeError):
        pass
    raise DataError(
        f"{data} is not a whole download",
        hint=f"move {data} away and fetch again, or fetch --force",
    )


def write_manifest(folder: Path, source: Mapping[str, Any], files: Iterable[Unpacked]) -> None:
    """Write the manifest of freshly unpacked files; `source` says where they came from."""
    listed = {file.name: {"bytes": file.size, "sha256": file.sha256} for file in files}
    digest = hashlib.sha256(json.dumps(listed, sort_keys=True).encode()).hexdigest()
    durable.write_json(
        folder / MANIFEST,
        {**source, "schema": SCHEMA, "version": digest[:16], "files": listed},
    )


def hashes(data: Path) -> dict[str, str] | None:
    """Return {file: sha256} of a fetched folder, None where it is not a whole fetch."""
    try:
        return {name: file["sha256"] for name, file in read_manifest(data)["files"].items()}
    except DataError:
        return None


def check_tree(
    data: Path, manifest: Mapping[str, Any], *, verify: bool = False, progress: Progress = QUIET
) -> None:
    """Compare size and time of every file; a file with another time, or `verify`, is hashed.

    Raises DataError naming the first file that is missing or not as it was fetched.
    """
    files = manifest["files"]
    if verify:
        progress.start("verify", float(sum(file["bytes"] for file in files.values())), "B")
        with ThreadPoolExecutor(os.cpu_count() or 1) as pool:
            sums = pool.map(lambda name: _hashed(data / name, files[name], progress), files)
            verdicts = list(sums)
        progress.finish()
    else:
        verdicts = [_untouched(data / name, noted) for name, noted in files.items()]
    wrong = [name for name, good in zip(files, verdicts, strict=True) if not good]
    if wrong:
        raise DataError(
            f"{data}: {len(wrong)} files are missing or changed, the first is {wrong[0]}",
            hint="kagflow fetch --force",
        )


def _untouched(path: Path, noted: Mapping[str, Any]) -> bool:
    try:
        found = path.lstat()
    except OSError:
        return False
    if not stat.S_ISREG(found.st_mode) or found.st_size != noted["bytes"]:
        return False
    return int(found.st_mtime) == archive.UNTOUCHED or _hashed(path, noted)


def _hashed(path: Path, noted: Mapping[str, Any], progress: Progress = QUIET) -> bool:
    try:
        same = not path.is_symlink() and durable.sha256_file(path) == noted["sha256"]
    except OSError:
        return False
    progress.advance(noted["bytes"])
    return same

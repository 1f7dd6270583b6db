"""Collect what a training needs beside the images and the code, for another machine.

A load is one flat folder: files named by their SHA-256, and a manifest that says where in a
workspace each belongs. `kagflow.ship.unload` makes that workspace there.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path, PurePosixPath
from typing import Any

from kagflow import durable
from kagflow.errors import UsageError
from kagflow.progress import QUIET, Progress
from kagflow.ship import pack, parts
from kagflow.ship.parts import Part
from kagflow.ship.runtime import code_of
from kagflow.task.surveyed import KEPT
from kagflow.workspace import Workspace

LOAD = "load"
# What the data's own folder holds that no download brings.
BESIDE_IMAGES = ("manifest.json", *KEPT)


def places(
    workspace: Workspace,
    competition: Path,
    *,
    code: Mapping[str, Path],
    weights: Iterable[str],
    runs: Iterable[Path],
) -> dict[str, Path]:
    """Return the files of a load by where they belong in the workspace there.

    `competition` is its folder, `code` maps paths from a package's folder on to what recipes run,
    `weights` are a recipe's files as it names them, `runs` the folders of unfinished runs, whose
    newest whole checkpoint goes along. Raises UsageError for weights named by a path that is
    another one on another machine.
    """
    name = competition.name
    found = {f"competitions/{key}": path for key, path in code.items()}
    for path in code_of(competition):
        found[f"competitions/{name}/{path.relative_to(competition).as_posix()}"] = path
    data = workspace.data(name)
    for file in BESIDE_IMAGES:
        if (data / file).is_file():
            found[f"{data_place(workspace, name)}/{file}"] = data / file
    for text in weights:
        found[_portable(text)] = Path(text).resolve()
    for run in runs:
        for path in run_files(run):
            found[path.relative_to(workspace.root).as_posix()] = path
    return found


def run_files(run: Path) -> Iterator[Path]:
    """Yield the files with which an unfinished run goes on; none where it has not begun."""
    kept = newest_checkpoint(run)
    for path in sorted(run.rglob("*")):
        inside = path.relative_to(run)
        hidden = any(one.startswith(".") for one in inside.parts)
        if hidden or not path.is_file() or path.is_symlink():
            continue
        if len(inside.parts) == 1 and path.name.startswith("ckpt-") and path.stem != kept:
            continue
        yield path


def newest_checkpoint(run: Path) -> str | None:
    """Return the stem of a run's newest checkpoint whose bytes are those of its sidecar."""
    sidecars = sorted(run.glob("ckpt-*.json"), key=_step, reverse=True)
    return next((one.stem for one in sidecars if _whole(one)), None)


def checkpoint_step(run: Path) -> int:
    """Return the step of a run's newest whole checkpoint, -1 where there is none."""
    stem = newest_checkpoint(run)
    return -1 if stem is None else int(stem.removeprefix("ckpt-"))


def data_place(workspace: Workspace, competition: str) -> str:
    """Return where the competition's data lies below the workspace, here and there."""
    return workspace.data(competition).relative_to(workspace.root).as_posix()


def build_load(
    root: Path, files: Mapping[str, Path], *, data: str, progress: Progress = QUIET
) -> Part:
    """Write `root/<hash>/`, the same files giving the same hash; what is there is checked.

    `files` are `places`, `data` is a `data_place`. Raises RefusedError on a credential in a file,
    DataError where one changes meanwhile.
    """
    names = {place: durable.sha256_file(path) for place, path in sorted(files.items())}
    sources = {names[place]: path for place, path in files.items()}
    told = pack.file_facts({LOAD: sources}, progress)[LOAD]
    return place_part(root, parts.seal(LOAD, told, places=names, data=data), sources)


def place_part(root: Path, manifest: Mapping[str, Any], sources: Mapping[str, Path]) -> Part:
    """Write one part as `root/<hash>/` unless it is there already, checked byte by byte."""
    name, final = str(manifest["part"]), root / str(manifest["hash"])
    if final.is_dir():
        return parts.read_part(final, name)
    with durable.staging(final) as folder:
        # It wants to make its folder itself.
        parts.write_part(folder / name, sources, manifest)
        for path in sorted((folder / name).iterdir()):
            path.rename(folder / path.name)
        (folder / name).rmdir()
    return Part(name, final, str(manifest["hash"]), dict(manifest))


def _portable(text: str) -> str:
    path = PurePosixPath(text)
    if path.is_absolute() or ".." in path.parts:
        raise UsageError(
            f"weights={text}: that path may be another one on another machine",
            hint="copy the file into the workspace and name it from there",
        )
    return path.as_posix()


def _step(sidecar: Path) -> int:
    return int(sidecar.stem.removeprefix("ckpt-"))


def _whole(sidecar: Path) -> bool:
    try:
        wanted = json.loads(sidecar.read_text())["sha256"]
        return bool(durable.sha256_file(sidecar.with_suffix(".pt")) == wanted)
    except (OSError, ValueError, KeyError, TypeError):
        return False

"""Which installed files a kernel may see: those of distributions that the image names too."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterable
from dataclasses import dataclass
from importlib.metadata import Distribution, distributions
from pathlib import Path, PurePosixPath

from packaging.requirements import Requirement

from kagflow.fingerprint import Fingerprint, normalise


@dataclass(frozen=True)
class View:
    """Say what the sandbox's site-packages holds.

    `binds` maps a path relative to site-packages to its source on this machine. `companions`
    are distributions that the image lacks but an image distribution needs in the version
    installed here. `left_out` are image distributions that can't be shown, with the reason.
    """

    binds: tuple[tuple[str, Path], ...]
    shown: dict[str, str]
    companions: tuple[str, ...]
    left_out: tuple[str, ...]


@dataclass(frozen=True)
class _File:
    owner: str
    root: Path
    parts: tuple[str, ...]


def build_view(fingerprint: Fingerprint) -> View:
    """Choose from the running environment the distributions that `fingerprint` names.

    A folder that several distributions share is shown whole only if all of them are chosen;
    otherwise one level deeper.
    """
    installed = _installed()
    editable = {name for name, dist in installed.items() if _is_editable(dist)}
    named = {name for name in installed if name in fingerprint.distributions}
    chosen = named - editable
    # The torch of this machine needs other CUDA libraries than the image's, and newer releases
    # gain dependencies: without them an import that works on Kaggle would fail here.
    companions = _closure(installed, chosen) - chosen - editable
    files = [file for name, dist in installed.items() for file in _files(name, dist)]
    return View(
        binds=tuple(_binds(files, chosen | companions, PurePosixPath())),
        shown={name: installed[name].version for name in sorted(chosen)},
        companions=tuple(sorted(companions)),
        left_out=tuple(f"{name}: an editable install" for name in sorted(named & editable)),
    )


def differences(fingerprint: Fingerprint, names: Iterable[str]) -> list[str]:
    """List what differs here from the image among `names` and all that they require."""
    installed = _installed()
    start = {normalise(name) for name in names}
    found = [f"{name}: not installed here" for name in sorted(start - set(installed))]
    for name in sorted(_closure(installed, start & set(installed))):
        image, here = fingerprint.public_version(name), installed[name].version
        if image is None:
            found.append(f"{name}: {here} here, needed by other versions, not in the image")
        elif here.partition("+")[0] != image:
            found.append(f"{name}: {here} here, {fingerprint.distributions[name]} in the image")
    return found


def _installed() -> dict[str, Distribution]:
    found: dict[str, Distribution] = {}
    for dist in distributions():
        name: str | None = dist.metadata["Name"]
        if name:
            found.setdefault(normalise(name), dist)
    return found


def _is_editable(dist: Distribution) -> bool:
    text = dist.read_text("direct_url.json")
    return bool(text and json.loads(text).get("dir_info", {}).get("editable"))


def _closure(installed: dict[str, Distribution], start: set[str]) -> set[str]:
    queue: list[tuple[str, frozenset[str]]] = [(name, frozenset()) for name in start]
    seen = set(queue)
    while queue:
        name, extras = queue.pop()
        for wanted in _requirements(installed[name], extras):
            if wanted[0] in installed and wanted not in seen:
                seen.add(wanted)
                queue.append(wanted)
    return {name for name, _ in seen}


def _requirements(
    dist: Distribution, extras: frozenset[str]
) -> Iterable[tuple[str, frozenset[str]]]:
    for wanted in map(Requirement, dist.requires or ()):
        marker = wanted.marker
        if marker is None or any(marker.evaluate({"extra": extra}) for extra in {"", *extras}):
            yield normalise(wanted.name), frozenset(wanted.extras)


def _files(name: str, dist: Distribution) -> Iterable[_File]:
    # RECORD is read by hand: importlib builds an object per line, seconds for torch.
    root = Path(str(dist.locate_file("")))
    record = dist.read_text("RECORD")
    paths: Iterable[str]
    if record is None:
        paths = (str(path) for path in dist.files or ())
    else:
        paths = (row[0] for row in csv.reader(record.splitlines()) if row)
    for path in paths:
        parts = PurePosixPath(path).parts
        if parts and parts[0] not in ("..", "/", "__pycache__"):
            yield _File(name, root, parts)


def _binds(
    files: Iterable[_File], chosen: set[str], prefix: PurePosixPath
) -> Iterable[tuple[str, Path]]:
    depth = len(prefix.parts)
    groups: dict[str, list[_File]] = {}
    for file in files:
        if len(file.parts) > depth:
            groups.setdefault(file.parts[depth], []).append(file)
    for part, group in sorted(groups.items()):
        seen = [file for file in group if file.owner in chosen]
        if not seen or part == "__pycache__":
            continue
        where = prefix / part
        whole = len(seen) == len(group) and len({file.root for file in seen}) == 1
        leaf = all(len(file.parts) == depth + 1 for file in seen)
        if not whole and not leaf:
            yield from _binds(group, chosen, where)
        elif (source := seen[0].root / where).exists():
            yield str(where), source.resolve()

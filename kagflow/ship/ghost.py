"""The image as a site-packages folder of metadata alone: what a resolver takes for installed."""

from __future__ import annotations

import importlib.metadata
import shutil
import sys
import sysconfig
import tempfile
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from packaging.requirements import InvalidRequirement, Requirement
from packaging.version import InvalidVersion

from kagflow.fingerprint import Fingerprint, Headers, normalise
from kagflow.ship.environment import applies, target_environment

_KEPT_S = 7 * 86400.0


def ghost(fingerprint: Fingerprint, cache: Path) -> Path:
    """Return a folder with one dist-info for each distribution of the image, made where missing.

    Requirements that the image itself does not meet are left out: it is used as it is, and a
    resolver would mend it. Nothing is written there later.
    """
    folder = cache / f"{fingerprint.content()}-{_borrowed_mark()}"
    if folder.is_dir():
        return folder
    cache.mkdir(parents=True, exist_ok=True)
    beside = Path(tempfile.mkdtemp(prefix=".ghost-", dir=cache))
    try:
        for name, version in fingerprint.distributions.items():
            info = beside / f"{name.replace('-', '_')}-{version}.dist-info"
            info.mkdir()
            with (info / "METADATA").open("w") as file:
                file.write(_metadata(name, version, headers_of(fingerprint, name), fingerprint))
        # Another process may have made the same meanwhile.
        with suppress(OSError):
            beside.rename(folder)
    finally:
        shutil.rmtree(beside, ignore_errors=True)
    _forget_old(cache, keep=folder)
    return folder


def headers_of(fingerprint: Fingerprint, name: str) -> Headers:
    """Return what is known of an image's distribution.

    A probe told all of it. Of an approximate image only the extras are taken, from what is
    installed here: what the image's own distributions need is in the image.
    """
    known = fingerprint.headers.get(name)
    if known is not None or not fingerprint.approximate:
        return known or Headers()
    installed = find_installed(name)
    if installed is None:
        return Headers()
    requires = tuple(text for text in installed.requires or () if "extra" in text.partition(";")[2])
    extras = tuple(installed.metadata.get_all("Provides-Extra") or ())
    return Headers(requires=requires, extras=extras)


def find_installed(name: str) -> importlib.metadata.Distribution | None:
    """Return the distribution that this Python would import, None when there is none."""
    try:
        return importlib.metadata.distribution(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def installed_versions() -> dict[str, str]:
    """Return what this Python would import, by normalised name.

    Read from the names of folders: parsing every METADATA takes most of a second.
    """
    found: dict[str, str] = {}
    for folder in sys.path:
        for info in Path(folder or ".").glob("*.dist-info"):
            name, _, version = info.name.removesuffix(".dist-info").partition("-")
            found.setdefault(normalise(name), version)
    return found


def unmet(fingerprint: Fingerprint) -> list[str]:
    """List what the image's own distributions miss in it: it is inconsistent as shipped."""
    return [
        f"{name} needs {requirement}"
        for name in fingerprint.distributions
        for requirement in _requirements(headers_of(fingerprint, name))
        if not _met(requirement, fingerprint)
    ]


def _forget_old(cache: Path, *, keep: Path) -> None:
    """Remove images that no pack can be using any more, and what a kill left half-made."""
    for folder in cache.iterdir():
        with suppress(OSError):
            if folder != keep and time.time() - folder.stat().st_mtime > _KEPT_S:
                shutil.rmtree(folder, ignore_errors=True)


def _metadata(name: str, version: str, headers: Headers, fingerprint: Fingerprint) -> str:
    lines = ["Metadata-Version: 2.1", f"Name: {name}", f"Version: {version}"]
    lines += [f"Provides-Extra: {extra}" for extra in headers.extras]
    lines += [
        f"Requires-Dist: {requirement}"
        for requirement in _requirements(headers)
        if _met(requirement, fingerprint)
    ]
    return "\n".join(lines) + "\n"


def _requirements(headers: Headers) -> Iterator[Requirement]:
    for text in headers.requires:
        with suppress(InvalidRequirement):
            yield Requirement(text)


def _met(requirement: Requirement, fingerprint: Fingerprint) -> bool:
    """Tell whether the image meets a requirement, or never has to: another system, an extra."""
    if not applies(requirement, target_environment(fingerprint)):
        return True
    version = fingerprint.distributions.get(normalise(requirement.name))
    try:
        return version is not None and requirement.specifier.contains(version, prereleases=True)
    except InvalidVersion:
        return False


def _borrowed_mark() -> str:
    # What is borrowed changes with what is installed: rarely, and one folder more is cheap.
    return f"{Path(sysconfig.get_paths()['purelib']).stat().st_mtime_ns:x}"

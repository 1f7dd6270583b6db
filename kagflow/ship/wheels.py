"""Find the distributions that must travel because Kaggle's image lacks them."""

from __future__ import annotations

import importlib.metadata
import sys
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import Distribution
from pathlib import Path
from typing import Literal

from packaging.requirements import InvalidRequirement, Requirement
from packaging.tags import Tag, compatible_tags, cpython_tags
from packaging.version import Version

from kagflow import durable, process
from kagflow.errors import DataError, KagflowError, LocalError
from kagflow.fingerprint import Fingerprint, normalise
from kagflow.progress import QUIET, Progress
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
class Closure:
    """Hold the wheels that travel and the image's distributions (name -> version) relied on."""

    wheels: tuple[WheelSource, ...]
    relied_on: dict[str, str]


@dataclass(frozen=True)
class Shelf:
    """Say where wheels may come from: `cache` is kept, `work` takes what is rebuilt."""

    cache: Path
    work: Path
    online: bool = True


@dataclass(frozen=True)
class _Wanted:
    requirement: Requirement
    why: str


def missing_wheels(
    requires: Mapping[str, Sequence[str]],
    fingerprint: Fingerprint,
    shelf: Shelf,
    *,
    progress: Progress = QUIET,
) -> Closure:
    """Close `requires` over Requires-Dist for the image and find a wheel for what it lacks.

    `requires` maps who asks (for messages) to requirements (PEP 508).

    Raises DataError where the image's own version does not fit (it is never replaced) or two
    requirements exclude each other, LocalError where no wheel can be had.
    """
    environment = target_environment(fingerprint)
    wanted = deque(_Wanted(_parse(text), who) for who, texts in requires.items() for text in texts)
    found: dict[str, WheelSource] = {}
    relied_on: dict[str, str] = {}
    seen: set[str] = set()
    while wanted:
        one = wanted.popleft()
        name = normalise(one.requirement.name)
        if str(one.requirement) in seen:
            continue
        seen.add(str(one.requirement))
        if name in fingerprint.distributions:
            relied_on[name] = fingerprint.distributions[name]
            _check_image(one, fingerprint)
            children = _image_extras(one)
        else:
            if name not in found:
                found[name] = _obtain(one, fingerprint, shelf)
                progress.note(f"{found[name].file.name} travels: {found[name].why}")
            _check_chosen(one, found[name])
            metadata = wheelfile.read_metadata(found[name].file)
            children = metadata.get_all("Requires-Dist", [])
        wanted.extend(_applying(children, one.requirement, environment))
    return Closure(tuple(found[name] for name in sorted(found)), dict(sorted(relied_on.items())))


def target_environment(fingerprint: Fingerprint) -> dict[str, str]:
    """Return the values that environment markers take inside the image (PEP 508)."""
    python = fingerprint.python
    full = python if python.count(".") > 1 else f"{python}.0"
    return {
        "implementation_name": "cpython",
        "implementation_version": full,
        "os_name": "posix",
        "platform_machine": "x86_64",
        "platform_python_implementation": "CPython",
        "platform_release": "",
        "platform_system": "Linux",
        "platform_version": "",
        "python_full_version": full,
        "python_version": ".".join(python.split(".")[:2]),
        "sys_platform": "linux",
    }


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


def _parse(text: str) -> Requirement:
    try:
        requirement = Requirement(text)
    except InvalidRequirement as error:
        raise DataError(
            f"'{text}' is no requirement: {error}", hint="write name>=version"
        ) from None
    if requirement.url:
        raise DataError(
            f"'{text}' names an address: only names and versions can be packed",
            hint="put its wheel into the cache and require it by name",
        )
    return requirement


def _applying(
    children: Iterable[str], parent: Requirement, environment: dict[str, str]
) -> list[_Wanted]:
    extras = sorted(parent.extras) or [""]
    applying = []
    for text in children:
        child = _parse(text)
        marker = child.marker
        if marker is None or any(marker.evaluate({**environment, "extra": e}) for e in extras):
            # Evaluated once and for all: what is left must not depend on who asked.
            child.marker = None
            applying.append(_Wanted(child, parent.name))
    return applying


def _check_image(one: _Wanted, fingerprint: Fingerprint) -> None:
    name = normalise(one.requirement.name)
    version = fingerprint.distributions[name]
    if not one.requirement.specifier.contains(version, prereleases=True):
        raise DataError(
            f"{one.why} needs {one.requirement}, but {fingerprint.name} holds {name} {version}, "
            "and what the image holds is never replaced",
            hint=f"require a version of {one.why} that takes {name} {version}",
        )


def _image_extras(one: _Wanted) -> list[str]:
    if not one.requirement.extras:
        return []
    installed = _installed(one.requirement.name)
    if installed is None:
        raise DataError(
            f"{one.why} needs {one.requirement}: what these extras ask for is not known here",
            hint=f"pip install '{one.requirement}', or require their distributions by name",
        )
    return [text for text in installed.requires or [] if "extra" in text.partition(";")[2]]


def _check_chosen(one: _Wanted, source: WheelSource) -> None:
    if not one.requirement.specifier.contains(source.version, prereleases=True):
        raise DataError(
            f"{one.why} needs {one.requirement}, but {source.name} {source.version} was taken "
            f"for {source.why}",
            hint=f"name one version of {source.name} under `requires` in competition.yaml",
        )


def _obtain(one: _Wanted, fingerprint: Fingerprint, shelf: Shelf) -> WheelSource:
    requirement = one.requirement
    installed = _installed(requirement.name)
    if installed and requirement.specifier.contains(installed.version, prereleases=True):
        # What was trained with is what travels.
        requirement = _parse(f"{requirement.name}=={installed.version}")
    else:
        installed = None
    file, origin = _fetch(requirement, installed, fingerprint, shelf)
    version = wheelfile.read_metadata(file)["Version"]
    name = normalise(requirement.name)
    return WheelSource(name, version, file, origin, durable.sha256_file(file), one.why)


def _fetch(
    requirement: Requirement, installed: Distribution | None, fingerprint: Fingerprint, shelf: Shelf
) -> tuple[Path, Origin]:
    cached = _from_cache(requirement, fingerprint, shelf.cache)
    if cached is not None:
        return cached, "cache"
    if installed is not None and wheelfile.pure_tag(installed):
        return wheelfile.rebuild(installed, shelf.work), "rebuilt"
    return _download(requirement, fingerprint, shelf), "downloaded"


def _installed(name: str) -> Distribution | None:
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


def _download(requirement: Requirement, fingerprint: Fingerprint, shelf: Shelf) -> Path:
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

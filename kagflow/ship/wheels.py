"""Find the distributions that must travel because Kaggle's image lacks them."""

from __future__ import annotations

import sys
import tempfile
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from packaging.requirements import InvalidRequirement, Requirement

from kagflow.errors import DataError, KagflowError
from kagflow.fingerprint import Fingerprint, load_snapshot, normalise
from kagflow.progress import QUIET, Progress
from kagflow.ship import runtime, wheelfile
from kagflow.ship.shelf import Shelf, WheelSource, download, find_installed, obtain
from kagflow.workspace import user_cache


@dataclass(frozen=True)
class Closure:
    """Hold the wheels that travel and the image's distributions (name -> version) relied on."""

    wheels: tuple[WheelSource, ...]
    relied_on: dict[str, str]


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
                found[name] = obtain(one.requirement, one.why, fingerprint, shelf)
                progress.note(f"{found[name].file.name} travels: {found[name].why}")
            _check_chosen(one, found[name])
            metadata = wheelfile.read_metadata(found[name].file)
            children = metadata.get_all("Requires-Dist", [])
        wanted.extend(_applying(children, one.requirement, environment))
    return Closure(tuple(found[name] for name in sorted(found)), dict(sorted(relied_on.items())))


def own_shelf(work: Path) -> Shelf:
    """Return this user's wheel cache, with `work` for what is rebuilt."""
    return Shelf(cache=user_cache() / "wheels", work=work)


def keep_wheels(fingerprint: Fingerprint) -> tuple[Path, ...]:
    """Download into the cache what every pack needs, so that packing works without a network.

    Raises LocalError where no network, index or wheel answers.
    """
    with tempfile.TemporaryDirectory(prefix="kagflow-wheels-") as work:
        shelf = own_shelf(Path(work))
        found = missing_wheels({runtime.NAME: runtime.requirements()}, fingerprint, shelf).wheels
        return tuple(
            download(Requirement(f"{wheel.name}=={wheel.version}"), fingerprint, shelf)
            if wheel.origin == "rebuilt"
            else wheel.file
            for wheel in found
        )


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
    installed = find_installed(one.requirement.name)
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


if __name__ == "__main__":
    try:
        keep_wheels(load_snapshot())
    except KagflowError as error:
        sys.exit(f"{error.message}\nPacks will hold wheels rebuilt from what is installed.")

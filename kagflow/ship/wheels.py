"""Find the distributions that must travel because Kaggle's image lacks them."""

from __future__ import annotations

import sys
import tempfile
from collections import deque
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from packaging.requirements import InvalidRequirement, Requirement

from kagflow.errors import DataError, KagflowError, NetworkError
from kagflow.fingerprint import Fingerprint, is_fixed, load_snapshot, normalise
from kagflow.progress import QUIET, Progress
from kagflow.ship import runtime, wheelfile
from kagflow.ship.environment import applies, target_environment
from kagflow.ship.ghost import headers_of
from kagflow.ship.resolver import mend, resolve
from kagflow.ship.shelf import Shelf, WheelSource, download, obtain
from kagflow.ship.sources import OFFLINE, host_sources, offline
from kagflow.workspace import user_cache


@dataclass(frozen=True)
class Closure:
    """Hold the wheels that travel and the image's distributions (name -> version) relied on.

    `replaced` are those of the image that a wheel takes the place of, by name. `reasons` tells by
    name who asked for what. `offline` says why no resolver was asked, "" where uv was.
    """

    wheels: tuple[WheelSource, ...]
    relied_on: dict[str, str]
    replaced: dict[str, str] = field(default_factory=dict)
    reasons: dict[str, tuple[str, ...]] = field(default_factory=dict)
    offline: str = ""


@dataclass(frozen=True)
class _Wanted:
    requirement: Requirement
    why: str


def missing_wheels(
    requires: Mapping[str, Sequence[str]],
    fingerprint: Fingerprint,
    shelf: Shelf,
    *,
    allow_replace: Collection[str] = (),
    progress: Progress = QUIET,
) -> Closure:
    """Close `requires` over Requires-Dist for the image and find a wheel for what it lacks.

    `requires` maps who asks (for messages) to requirements (PEP 508). uv chooses the versions;
    without a network those of the cache and of this installation are taken. `allow_replace` names
    what of the image a wheel may take the place of.

    Raises DataError where the image's own version does not fit or two requirements exclude each
    other, RefusedError for a compiled source, LocalError where no wheel can be had.
    """
    walk = _Walk(requires, fingerprint, {normalise(name) for name in allow_replace}, progress)
    if shelf.offline:
        return walk.close(shelf, {})
    try:
        chosen = resolve(
            walk.asked(), fingerprint, shelf, allow_replace=allow_replace, progress=progress
        )
        return walk.close(shelf, chosen.pins)
    except NetworkError as error:
        return walk.close(shelf.cut(error.message), {})
    except DataError as refused:
        # What is installed here may be on no index: a release candidate, a private one.
        try:
            return walk.close(shelf.cut(f"no index offers it: {refused.message}"), {})
        except KagflowError:
            raise refused from None


def asked_for(requires: Sequence[str]) -> dict[str, Sequence[str]]:
    """Return what a pack needs, by who asks: the runtime, and a competition's own `requires`."""
    return {runtime.NAME: runtime.requirements(), "competition.yaml": tuple(requires)}


def own_shelf(work: Path) -> Shelf:
    """Return this user's wheel cache, with `work` for what is rebuilt."""
    cut = f"{OFFLINE} is set" if offline() else ""
    return Shelf(user_cache() / "wheels", work, offline=cut, sources=host_sources())


class _Walk:
    """Follow requirements from wheel to wheel, noting who asked for what."""

    def __init__(
        self,
        requires: Mapping[str, Sequence[str]],
        fingerprint: Fingerprint,
        free: Collection[str],
        progress: Progress,
    ) -> None:
        self._fingerprint, self._free, self._progress = fingerprint, free, progress
        self._environment = target_environment(fingerprint)
        self._first = [
            one
            for who, texts in requires.items()
            for text in texts
            if applies((one := _Wanted(_parse(text), who)).requirement, self._environment)
        ]
        for one in self._first:
            self._replaces(one)

    def asked(self) -> list[str]:
        """Return the requirements that no wheel asks for."""
        return [str(one.requirement) for one in self._first]

    def close(self, shelf: Shelf, pins: Mapping[str, str]) -> Closure:
        """Find every wheel, of the version in `pins` where there is one."""
        found: dict[str, WheelSource] = {}
        relied_on: dict[str, str] = {}
        reasons: dict[str, dict[str, None]] = {}
        wanted, seen = deque(self._first), set[str]()
        while wanted:
            one = wanted.popleft()
            name = normalise(one.requirement.name)
            reasons.setdefault(name, {})[f"{one.why} asks for {one.requirement}"] = None
            if str(one.requirement) in seen:
                continue
            seen.add(str(one.requirement))
            if name in self._fingerprint.distributions and not (
                name in pins or name in found or self._replaces(one)
            ):
                relied_on[name] = self._fingerprint.distributions[name]
                children: Iterable[str] = self._extras(one)
            else:
                if name not in found:
                    found[name] = self._obtain(one, shelf, pins.get(name))
                _check_chosen(one, found[name])
                # Checked whole when it was found.
                metadata = wheelfile.read_metadata(found[name].file, whole=False)
                children = metadata.get_all("Requires-Dist", [])
            wanted.extend(_applying(children, one.requirement, self._environment))
        image = self._fingerprint.distributions
        replaced = {name: image[name] for name in sorted(found) if name in image}
        return Closure(
            wheels=tuple(found[name] for name in sorted(found)),
            relied_on={name: relied_on[name] for name in sorted(relied_on) if name not in found},
            replaced=replaced,
            reasons={name: tuple(told) for name, told in sorted(reasons.items())},
            offline=shelf.offline,
        )

    def _obtain(self, one: _Wanted, shelf: Shelf, version: str | None) -> WheelSource:
        source = obtain(one.requirement, one.why, self._fingerprint, shelf, version=version)
        self._progress.note(f"{source.file.name} travels: {source.why}")
        return source

    def _replaces(self, one: _Wanted) -> bool:
        """Tell whether a requirement asks for another version than the image's.

        Raises DataError where that may not be replaced.
        """
        name = normalise(one.requirement.name)
        version = self._fingerprint.distributions.get(name)
        if version is None or one.requirement.specifier.contains(version, prereleases=True):
            return False
        if name in self._free and not is_fixed(name):
            return True
        raise DataError(
            f"{one.why} needs {one.requirement}, but {self._fingerprint.name} holds {name} "
            f"{version}, and what the image holds is never replaced",
            hint=mend(one.why, name, version),
        )

    def _extras(self, one: _Wanted) -> Iterable[str]:
        """Return what the extras of an image's distribution ask for."""
        if not one.requirement.extras:
            return []
        known = headers_of(self._fingerprint, normalise(one.requirement.name))
        if not known.extras:
            raise DataError(
                f"{one.why} needs {one.requirement}: what these extras ask for is not known here",
                hint=f"pip install '{one.requirement}', or require their distributions by name",
            )
        return [text for text in known.requires if "extra" in text.partition(";")[2]]


def keep_wheels(fingerprint: Fingerprint) -> tuple[Path, ...]:
    """Download into the cache what every pack needs, so that packing works without a network.

    Raises LocalError where no network, index or wheel answers.
    """
    with tempfile.TemporaryDirectory(prefix="kagflow-wheels-") as work:
        shelf = own_shelf(Path(work))
        found = missing_wheels(asked_for(()), fingerprint, shelf).wheels
        return tuple(
            download(Requirement(f"{wheel.name}=={wheel.version}"), fingerprint, shelf)
            if wheel.origin == "rebuilt"
            else wheel.file
            for wheel in found
        )


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
) -> Iterator[_Wanted]:
    for text in children:
        child = _parse(text)
        if applies(child, environment, parent.extras):
            # Evaluated once and for all: what is left must not depend on who asked.
            child.marker = None
            yield _Wanted(child, parent.name)


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

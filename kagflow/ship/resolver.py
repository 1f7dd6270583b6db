"""Choose the versions that travel: uv against the image, which it may complete but never change."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass

from packaging.requirements import InvalidRequirement, Requirement
from packaging.specifiers import InvalidSpecifier, SpecifierSet
from packaging.version import Version

from kagflow.errors import DataError
from kagflow.fingerprint import Fingerprint, is_fixed, normalise
from kagflow.progress import QUIET, Progress
from kagflow.ship.ghost import ghost, installed_versions
from kagflow.ship.sdist import build_pure
from kagflow.ship.shelf import Shelf
from kagflow.ship.uv_run import Changes, NoSolutionError, plan_install

# No resolver sees CUDA: from this release on the wheels are made for another one.
CUDA_LIMITS = {"12": ("onnxruntime-gpu<1.27",)}
_WHEELLESS = re.compile(r"Wheels are required for `([\w.-]+)`")
_SPEC = r"((?:[<>=!~]=?[^\s,;]+,?)*)"
_DEPENDS = re.compile(r"(\S+?) depends? on ([\w.-]+)(?:\{[^}]*\}|\[[^\]]*\])?([<>=!~][^\s]*[^\s,])")


@dataclass(frozen=True)
class Resolution:
    """Map what travels to its version, and what it replaces in the image to the image's."""

    pins: dict[str, str]
    replaced: dict[str, str]


def resolve(
    asked: Sequence[str],
    fingerprint: Fingerprint,
    shelf: Shelf,
    *,
    allow_replace: Collection[str] = (),
    progress: Progress = QUIET,
) -> Resolution:
    """Return the versions that the image lacks, those installed here preferred.

    Pure source distributions are built on the way. Raises DataError with the reason where none
    fit, RefusedError for a compiled source, NetworkError where no index answers.
    """
    free = {normalise(name) for name in allow_replace}
    limits = constraints(fingerprint, free)
    # What was trained with is what should travel; where that can't be, what is newest.
    for wishes in (_trained(fingerprint), ()):
        try:
            changes = _with_sources(asked, [*limits, *wishes], fingerprint, shelf, progress)
        except NoSolutionError as error:
            said = error.message
        else:
            return _checked(changes, fingerprint, free)
    raise _refusal(said, fingerprint)


def constraints(fingerprint: Fingerprint, free: Collection[str] = ()) -> list[str]:
    """Return what holds uv to the image: every version of it, and what CUDA asks for."""
    held = [
        f"{name}=={fingerprint.public_version(name)}"
        for name in fingerprint.distributions
        if name not in free or is_fixed(name)
    ]
    return [*held, *CUDA_LIMITS.get(fingerprint.cuda.partition(".")[0], ())]


def _trained(fingerprint: Fingerprint) -> list[str]:
    return [
        f"{name}=={version}"
        for name, version in sorted(installed_versions().items())
        # A version of this machine's own is on no index.
        if name not in fingerprint.distributions and "+" not in version
    ]


def _with_sources(
    asked: Sequence[str],
    limits: Sequence[str],
    fingerprint: Fingerprint,
    shelf: Shelf,
    progress: Progress,
) -> Changes:
    """Plan, building one source after the other that has no wheel anywhere."""
    built: set[str] = set()
    while True:
        try:
            return plan_install(
                asked,
                fingerprint=fingerprint,
                into=ghost(fingerprint, shelf.ghosts),
                sources=shelf.sources,
                constraints=limits,
                find_links=[shelf.cache] if shelf.cache.is_dir() else [],
            )
        except NoSolutionError as error:
            wanted = unbuilt(error.message, fingerprint)
            if wanted is None or wanted.name in built:
                raise
            built.add(wanted.name)
            progress.note(f"{wanted} is published without wheels: building it here")
            build_pure(wanted, fingerprint, shelf.sources, work=shelf.work, cache=shelf.cache)


def unbuilt(said: str, fingerprint: Fingerprint) -> Requirement | None:
    """Return the source distribution whose missing wheel is uv's very reason, None for others."""
    flat = " ".join(said.split())
    found = _WHEELLESS.search(flat)
    if found is None or any(_clashes(flat, fingerprint)):
        return None
    name = re.escape(found[1])
    for words in (f"{name}{_SPEC} ha(?:s|ve) no usable wheels", f"(?:require|on) {name}{_SPEC}"):
        for spec in re.findall(words, flat):
            with suppress(InvalidRequirement):
                return Requirement(f"{found[1]}{spec.rstrip(',')}")
    return Requirement(found[1])


def _checked(changes: Changes, fingerprint: Fingerprint, free: Collection[str]) -> Resolution:
    replaced = {name: fingerprint.distributions.get(name, "") for name in changes.removed}
    wrong = sorted(name for name in replaced if name not in free or is_fixed(name))
    if wrong:
        # The constraints forbid it: a uv that does it all the same is not to be trusted.
        raise DataError(f"uv would replace what the image holds: {', '.join(wrong)}")
    return Resolution(changes.installed, replaced)


def _refusal(said: str, fingerprint: Fingerprint) -> DataError:
    """Say which distribution of the image stands against which requirement, and whose it is."""
    clashes = list(_clashes(" ".join(said.split()), fingerprint))
    if not clashes:
        return DataError(f"no set of wheels fits {fingerprint.name}: {said}", hint=_look())
    # uv argues from the oldest release to the newest: the last clash is the newest's.
    who, requirement, name = clashes[-1]
    version = fingerprint.distributions[name]
    return DataError(
        f"{who} needs {requirement}, but {fingerprint.name} holds {name} {version}, "
        "and what the image holds is never replaced",
        hint=mend(who, name, version),
    )


def mend(who: str, name: str, version: str) -> str:
    """Return what can be done about a requirement that the image's own version does not meet."""
    advice = f"require a version of {who} that takes {name} {version}"
    if is_fixed(name):
        return f"{advice}; {name} itself can't be replaced on Kaggle"
    return f"{advice}, or write `allow_replace: [{name}]` in competition.yaml"


def _clashes(flat: str, fingerprint: Fingerprint) -> Iterable[tuple[str, str, str]]:
    for who, wanted, spec in _DEPENDS.findall(flat):
        name = normalise(wanted)
        version = fingerprint.public_version(name)
        try:
            if version and not SpecifierSet(spec).contains(Version(version), prereleases=True):
                yield re.split(r"[<>=!~]", who)[0], f"{wanted}{spec}", name
        except InvalidSpecifier:
            continue


def _look() -> str:
    return "kagflow pack --explain shows what is asked for, and by whom"

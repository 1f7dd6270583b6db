"""Find for this machine what a pack holds for the image's Python alone: the same version."""

from __future__ import annotations

import platform
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

from packaging.utils import parse_wheel_filename

from kagflow import durable, standins
from kagflow.errors import DataError, KagflowError, LocalError, NetworkError
from kagflow.fingerprint import Fingerprint, normalise
from kagflow.ship import wheelfile
from kagflow.ship.ghost import find_installed, ghost
from kagflow.ship.index import fetch_wheel
from kagflow.ship.resolver import constraints
from kagflow.ship.shelf import Shelf
from kagflow.ship.uv_run import plan_install


def provide(env: Path, fingerprint: Fingerprint, shelf: Shelf) -> list[str]:
    """Look for a stand-in for every wheel of a pack that this Python refuses; keep it beside.

    Returns a sentence for each that was looked for. Where none can be had, the reason is kept.
    """
    said = []
    for wheel in standins.foreign(env, fingerprint):
        if standins.found(wheel):
            continue
        place = standins.folder(wheel)
        place.mkdir(parents=True, exist_ok=True)
        try:
            names = ", ".join(one.name for one in _obtain(wheel, env, fingerprint, shelf))
        except KagflowError as error:
            durable.write_text(place / standins.REASON, error.message)
            said.append(f"{wheel}: nothing stands in for it here: {error.message}")
        else:
            (place / standins.REASON).unlink(missing_ok=True)
            said.append(f"{wheel}: rehearsed here as {names}")
    return said


def _obtain(wheel: str, env: Path, fingerprint: Fingerprint, shelf: Shelf) -> list[Path]:
    name, number, *_ = parse_wheel_filename(wheel)
    version, place = str(number), standins.folder(wheel)
    installed = find_installed(name)
    if installed is not None and installed.version == version:
        # What was trained with: the nearest to it that there is.
        try:
            return [wheelfile.rebuild(installed, place, compiled=True)]
        except (LocalError, DataError):
            if shelf.offline:
                raise
    if shelf.offline:
        raise NetworkError(f"{name} {version} is not installed here, and {shelf.offline}")
    host = _host(fingerprint, env, without=name)
    changes = plan_install(
        [f"{name}=={version}"],
        fingerprint=host,
        into=ghost(host, shelf.ghosts),
        sources=shelf.sources,
        constraints=constraints(host),
    )
    # The one asked for comes last: an interrupt then leaves nothing that looks whole.
    wanted = sorted(changes.installed.items(), key=lambda one: one[0] == normalise(name))
    return [_fetch(one, shelf, host, place) for one in wanted]


def _fetch(wanted: tuple[str, str], shelf: Shelf, host: Fingerprint, place: Path) -> Path:
    name, version = wanted
    tags = list(standins.host_tags())
    return fetch_wheel(name, version, tags, host.python, shelf.sources, place)


def _host(fingerprint: Fingerprint, env: Path, *, without: str) -> Fingerprint:
    """Return the image with this machine's Python, and what else of the pack is there."""
    glibc = platform.libc_ver()[1]
    if not glibc:
        raise LocalError("wheels for this machine are looked for with glibc only")
    packed = {name: version for name, version in _packed(env) if name != normalise(without)}
    return replace(
        fingerprint,
        name="this machine",
        python=platform.python_version(),
        glibc=glibc,
        distributions={**fingerprint.distributions, **packed},
    )


def _packed(env: Path) -> Iterable[tuple[str, str]]:
    for wheel in sorted(env.glob("*.whl")):
        known = wheelfile.wheel_tags(wheel)
        if known is not None:
            yield normalise(known[0]), known[1]

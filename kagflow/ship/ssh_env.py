"""A Python on the host that imports what kagflow needs: one that is there, or an environment.

An environment of kagflow's is named by what it holds and used again. It is laid over the host's own
Python where that has a torch that fits, since torch is gigabytes; the rest comes by the host's pip,
at the versions that run here, or as wheels that are sent where its pip reaches no index.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import os
import re
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from packaging.requirements import Requirement

from kagflow.errors import KagflowError, LocalError
from kagflow.fingerprint import Fingerprint, normalise
from kagflow.ship import whole
from kagflow.ship.environment import applies
from kagflow.ship.ssh import PYTHON, Link
from kagflow.ship.ssh_errors import last_line
from kagflow.ship.ssh_job import follow, start
from kagflow.ship.ssh_send import ask, listed, send
from kagflow.ship.wheels import missing_wheels, own_shelf

# Gigabytes with what they need, and bound to the driver: never sent.
HEAVY = frozenset({"torch", "torchvision"})
# Also an index that lacks a version: pip then speaks of a conflict with the constraint.
NOT_FOUND = re.compile(
    r"ResolutionImpossible|No matching distribution|Could not find a version|Max retries|"
    r"NewConnectionError|ConnectionError|name resolution|ConnectTimeout|No module named pip"
)
# Lays an environment over the Python that runs this, a virtual one included.
OVERLAY = """
import sys, sysconfig, venv
from pathlib import Path
target = Path(sys.argv[1])
venv.create(target, clear=True, symlinks=True, with_pip=True)
own = {sysconfig.get_path(name) for name in ("stdlib", "platstdlib")}
own |= {one + "/lib-dynload" for one in own}
places = [one for one in sys.path if one and one not in own and not one.endswith(".zip")]
if sys.argv[2] == "over":
    name = "python{}.{}".format(*sys.version_info)
    site = target / "lib" / name / "site-packages"
    (site / "kagflow-host.pth").write_text("".join(one + chr(10) for one in places))
"""


@dataclass(frozen=True)
class Needs:
    """What has to be imported: requirements (PEP 508), and the version of each thing run here."""

    requirements: tuple[str, ...]
    pins: Mapping[str, str]


def needs(extra: Iterable[str] = ()) -> Needs:
    """Return what training requires, and `extra`, at the versions that are installed here."""
    asked = sorted([*whole.requirements(), *extra])
    return Needs(tuple(asked), _closure(asked))


def ready(link: Link, wanted: Needs) -> str:
    """Return the path of a Python on the host that imports what is wanted; make one where needed.

    Raises LocalError where the host has no torch and reaches no index, or lacks what cannot be
    sent.
    """
    base = str(link.facts["python"])
    there = ask_packages(link, base)
    has = {normalise(name): str(version) for name, version in there["found"].items()}
    lacks = lacking(wanted, has, str(there["version"]))
    if not lacks:
        _note_other(link, wanted, has)
        return base
    over = not HEAVY & {normalise(Requirement(one).name) for one in lacks}
    kept = {name: version for name, version in has.items() if over}
    limits = sorted(f"{name}=={kept.get(name, pin)}" for name, pin in wanted.pins.items())
    asked = lacks if over else list(wanted.requirements)
    key = _key(base, str(there["version"]), over=over, asked=asked, limits=limits)
    python = f"{link.home}/envs/{key}/bin/python"
    if ask(link, "exists", name=f"envs/{key}/ready")["there"]:
        return python
    link.progress.note(f"{link.host} lacks {', '.join(lacks)}: making an environment there")
    made = _Making(link, key, base, over=over, python=python)
    error = made.by_pip(asked, limits)
    if error is None:
        return python
    if "ensurepip" in error:
        raise LocalError(
            f"{base} on {link.host} cannot make an environment: it comes without ensurepip",
            hint=f"apt install python3-venv there, or name another Python: {PYTHON}=/its/path",
        )
    if not NOT_FOUND.search(error):
        raise LocalError(
            f"pip on {link.host} failed: {last_line(error)}",
            hint=f"read its words above, or name a Python that has it all: {PYTHON}=/its/path",
        )
    made.by_wheels(lacks, wanted, has, there)
    return python


def lacking(wanted: Needs, has: Mapping[str, str], python: str) -> list[str]:
    """Return the requirements that the distributions of a Python do not meet."""
    environment = {"python_version": ".".join(python.split(".")[:2]), "python_full_version": python}
    found = []
    for text in wanted.requirements:
        one = Requirement(text)
        version = has.get(normalise(one.name))
        if not applies(one, environment):
            continue
        if version is None or not one.specifier.contains(version, prereleases=True):
            found.append(text)
    return found


def ask_packages(link: Link, python: str) -> dict[str, Any]:
    """Return a Python's version and distributions."""
    return link.call("packages", python=python)


class _Making:
    """An environment in the making."""

    def __init__(self, link: Link, key: str, base: str, *, over: bool, python: str) -> None:
        self.link, self.key, self.base, self.over, self.python = link, key, base, over, python

    def by_pip(self, asked: Sequence[str], limits: Sequence[str]) -> str | None:
        """Install from the index that the host's pip knows; return its words where it fails."""
        with tempfile.TemporaryDirectory(prefix="kagflow-env-") as made:
            folder = Path(made)
            (folder / "requirements.txt").write_text("".join(f"{one}\n" for one in asked))
            (folder / "constraints.txt").write_text("".join(f"{one}\n" for one in limits))
            told = send(self.link, f"asked/{self.key}", folder, listed(folder), what="requirements")
        words = ["-r", f"{told}/requirements.txt", "-c", f"{told}/constraints.txt"]
        return self._run([*words, "--retries", "1", "--timeout", "20"])

    def by_wheels(
        self,
        lacks: Sequence[str],
        wanted: Needs,
        has: Mapping[str, str],
        there: Mapping[str, Any],
    ) -> None:
        """Send wheels of what the host lacks, and install those alone.

        Raises LocalError where torch would have to travel, or a wheel can be had nowhere.
        """
        host = self.link.host
        heavy = [one for one in lacks if normalise(Requirement(one).name) in HEAVY]
        if heavy:
            raise LocalError(
                f"{host} has no {' and '.join(heavy)}, its pip finds none, and it is too large to "
                "send",
                hint=f"name a Python there that has torch: {PYTHON}=/its/path, or let its pip "
                "reach an index",
            )
        image = Fingerprint(
            name=str(host),
            python=str(there["version"]),
            glibc=str(self.link.facts["glibc"]),
            cuda="",
            approximate=False,
            distributions=dict(has),
        )
        pinned = [f"{name}=={wanted.pins[name]}" for name in wanted.pins if name not in has]
        with tempfile.TemporaryDirectory(prefix="kagflow-wheels-") as work:
            try:
                found = missing_wheels(
                    {"kagflow": pinned},
                    image,
                    own_shelf(Path(work)),
                    progress=self.link.progress,
                ).wheels
            except KagflowError as error:
                raise LocalError(
                    f"pip on {host} finds not all, and not every wheel can be sent: "
                    f"{error.message}",
                    hint=f"{PYTHON}=/its/path names a Python there that has it all",
                ) from error
            folder = Path(work, "wheels")
            folder.mkdir(exist_ok=True)
            for wheel in found:
                os.link(wheel.file, folder / wheel.file.name)
            files = listed(folder)
            told = send(self.link, f"wheels/{_digest(files)}", folder, files, what="wheels")
        error_text = self._run(["--no-index", *(f"{told}/{name}" for name in files)])
        if error_text is not None:
            raise LocalError(
                f"the wheels that were sent do not install on {host}: {last_line(error_text)}",
                hint=f"{PYTHON}=/its/path names a Python there that has it all",
            )

    def _run(self, words: Sequence[str]) -> str | None:
        root = f"{self.link.home}/envs/{self.key}"
        pip = [self.python, "-m", "pip", "install", "--no-input", "--disable-pip-version-check"]
        mark = "import pathlib, sys; pathlib.Path(sys.argv[1]).write_text('')"
        steps = [
            {"argv": [self.base, "-I", "-c", OVERLAY, root, "over" if self.over else "alone"]},
            {"argv": [*pip, *words]},
            {"argv": [self.base, "-I", "-c", mark, f"{root}/ready"]},
        ]
        job = f"env-{self.key}"
        start(self.link, job, steps)
        standing, tail = follow(self.link, job, self.link.progress.note)
        return None if standing.code == 0 else "\n".join(tail) or "it ended without a word"


def _closure(asked: Iterable[str]) -> dict[str, str]:
    """Return {name: version} of what requirements bring with them here, without local parts."""
    found: dict[str, str] = {}
    wanted = [Requirement(text) for text in asked]
    while wanted:
        one = wanted.pop()
        name = normalise(one.name)
        try:
            installed = importlib.metadata.distribution(one.name)
        except importlib.metadata.PackageNotFoundError:
            continue
        if name in found:
            continue
        found[name] = installed.version.partition("+")[0]
        children = map(Requirement, installed.requires or ())
        wanted += [child for child in children if applies(child, {}, one.extras)]
    return found


def _note_other(link: Link, wanted: Needs, has: Mapping[str, str]) -> None:
    other = [
        f"{name} {has[name]} (here {wanted.pins[name]})"
        for name in ("torch", "timm", "segmentation-models-pytorch", "albumentations")
        if name in wanted.pins and has[name].partition("+")[0] != wanted.pins[name]
    ]
    if other:
        link.progress.note(f"{link.host} trains with {', '.join(other)}")


def _key(
    base: str, version: str, *, over: bool, asked: Sequence[str], limits: Sequence[str]
) -> str:
    return _digest([base if over else "", version, over, list(asked), list(limits)])


def _digest(value: object) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:16]

"""Build a wheel of a source distribution, which only a pure Python one may come to the image as."""

from __future__ import annotations

import re
import sys
import tempfile
from pathlib import Path

from packaging.requirements import Requirement

from kagflow import durable, process
from kagflow.errors import LocalError, RefusedError
from kagflow.fingerprint import Fingerprint
from kagflow.ship import wheelfile
from kagflow.ship.sources import Sources
from kagflow.tags import target_tags

TIMEOUT_S = 600.0


def build_pure(
    requirement: Requirement,
    fingerprint: Fingerprint,
    sources: Sources,
    *,
    work: Path,
    cache: Path,
) -> Path:
    """Build one wheel here with pip and keep it in `cache`, if it runs on any machine.

    Raises RefusedError for a compiled one: this machine's is not the image's. LocalError where it
    can't be built.
    """
    with tempfile.TemporaryDirectory(prefix="build-", dir=work) as folder:
        command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-input"]
        command += ["--disable-pip-version-check", "--no-cache-dir", "--wheel-dir", folder]
        done = process.run(
            [*command, str(requirement)],
            env=sources.environment(),
            timeout=TIMEOUT_S,
            check=False,
        )
        made = sorted(Path(folder).glob("*.whl"))
        if done.returncode or not made:
            raise LocalError(
                f"{requirement} has no wheel, and its source does not build here: "
                f"{_reason(done.stderr or done.stdout)}",
                hint=builder(requirement, cache),
            )
        return _kept(made[0], requirement, fingerprint, cache)


def builder(requirement: Requirement, cache: Path) -> str:
    """Return how a compiled wheel is made: on Kaggle's own image."""
    return (
        "build it on Kaggle: a CPU notebook with the internet on runs "
        f"`pip wheel --no-deps '{requirement}'`; put the wheel that it leaves into {cache} "
        "and pack again"
    )


def _reason(said: str) -> str:
    # pip ends with advice; what broke stands in the build's own last line that names an error.
    lines = [line.strip() for line in said.splitlines() if line.strip()]
    told = [line for line in lines if re.search(r"\w*Error\b|^error:", line)]
    own = [line for line in told if not line.startswith(("note:", "ERROR: Failed"))]
    return (own or lines or ["no word"])[-1]


def _kept(wheel: Path, requirement: Requirement, fingerprint: Fingerprint, cache: Path) -> Path:
    known = wheelfile.wheel_tags(wheel)
    tags = known[2] if known else frozenset()
    pure = {tag for tag in tags if (tag.abi, tag.platform) == ("none", "any")}
    if not pure & set(target_tags(fingerprint)):
        raise RefusedError(
            f"{requirement} is compiled from its source: what this machine makes "
            f"({wheel.name}) does not run in {fingerprint.name}",
            hint=builder(requirement, cache),
        )
    target = cache / wheel.name
    durable.write_bytes(target, wheel.read_bytes())
    return target

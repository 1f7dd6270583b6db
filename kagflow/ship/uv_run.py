"""Ask uv what it would install into the image, and nothing else; it never writes there."""

from __future__ import annotations

import json
import re
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from kagflow import process
from kagflow.errors import KagflowError, LocalError, NetworkError
from kagflow.fingerprint import Fingerprint, normalise
from kagflow.ship.environment import uv_platform
from kagflow.ship.sources import Sources

TIMEOUT_S = 600.0
# uv's own words for an index that does not answer; its exit code is 2 for much else too.
_UNREACHED = re.compile(
    r"failed to fetch|request failed|error sending request|timed? ?out", re.IGNORECASE
)
_CHANGE = re.compile(r"^ ([+-]) ([\w.-]+)==(\S+)", re.MULTILINE)


class NoSolutionError(KagflowError):
    """Carry uv's explanation of why no set of versions fits."""

    exit_code = 6


@dataclass(frozen=True)
class Changes:
    """Map normalised names to versions: what would come, and what would go for it."""

    installed: dict[str, str]
    removed: dict[str, str]


def plan_install(  # noqa: PLR0913 - one keyword for each thing that bounds a plan
    requirements: Sequence[str],
    *,
    fingerprint: Fingerprint,
    into: Path,
    sources: Sources,
    constraints: Sequence[str] = (),
    find_links: Sequence[Path] = (),
    offline: bool = False,
) -> Changes:
    """Return what installing `requirements` into the folder `into` would change.

    `offline` looks at `find_links` alone. Raises NoSolutionError with uv's reasons, NetworkError
    where an index does not answer, LocalError where uv itself fails.
    """
    command = [uv_binary(), "pip", "install", "--dry-run", "--output-format", "json"]
    command += ["--no-config", "--no-build", "--color", "never", "--target", str(into)]
    command += ["--python", sys.executable, "--python-version", fingerprint.python]
    command += ["--python-platform", uv_platform(fingerprint)]
    if offline:
        command += ["--offline", "--no-index"]
    places = [*find_links, *(() if offline else sources.find_links)]
    for place in places:
        command += ["--find-links", str(place)]
    with tempfile.TemporaryDirectory(prefix="kagflow-uv-") as folder:
        asked, limits = Path(folder, "requirements.txt"), Path(folder, "constraints.txt")
        asked.write_text("\n".join(requirements) + "\n")
        limits.write_text("\n".join(constraints) + "\n")
        command += ["--constraints", str(limits), "--requirements", str(asked)]
        environment = Sources(indexes=()).environment() if offline else sources.environment()
        done = process.run(command, env=environment, timeout=TIMEOUT_S, check=False)
    if done.returncode:
        raise _failure(done.stderr)
    return read_changes(done.stdout, done.stderr)


def read_changes(stdout: str, stderr: str) -> Changes:
    """Read uv's plan: its JSON, whose form is not settled, else its lines for people."""
    found: dict[str, dict[str, str]] = {"installed": {}, "uninstalled": {}}
    try:
        for one in json.loads(stdout)["changes"]:
            found[one["action"]][normalise(one["name"])] = str(one["version"])
    except (ValueError, KeyError, TypeError):
        found = {"installed": {}, "uninstalled": {}}
        for sign, name, version in _CHANGE.findall(stderr):
            found["installed" if sign == "+" else "uninstalled"][normalise(name)] = version
    return Changes(found["installed"], found["uninstalled"])


def uv_binary() -> str:
    """Return the path of uv's program.

    Raises LocalError where the declared dependency is missing.
    """
    try:
        from uv import find_uv_bin

        return str(find_uv_bin())
    except (ImportError, FileNotFoundError) as error:
        raise LocalError(f"uv is not installed: {error}", hint="pip install 'uv>=0.13'") from None


def _failure(text: str) -> KagflowError:
    said = text.partition("error: ")[2].strip() or text.strip()
    if "No solution found" in text:
        return NoSolutionError(said.partition("cause: ")[2] or said)
    if _UNREACHED.search(text):
        reason = said.splitlines()[-1].removeprefix("  cause: ") if said else "no answer"
        return NetworkError(f"the package index does not answer: {reason}", hint="check --debug")
    return LocalError(f"uv failed: {said[-1500:]}", hint="pip install -U 'uv>=0.13'")

"""A Kaggle image as data: which distributions, at which versions, on which Python."""

from __future__ import annotations

import re
from dataclasses import dataclass

from kagflow import resources
from kagflow.errors import UsageError

DEFAULT = "kaggle-image-v170-approx"


@dataclass(frozen=True)
class Fingerprint:
    """Describe an image; `distributions` maps a normalised name to its full version."""

    name: str
    python: str
    glibc: str
    cuda: str
    approximate: bool
    distributions: dict[str, str]

    def public_version(self, name: str) -> str | None:
        """Return a distribution's version without its `+local` part, None when absent.

        PEP 440: a constraint with a local part can't be met from an index.
        """
        version = self.distributions.get(normalise(name))
        return None if version is None else version.partition("+")[0]


def normalise(name: str) -> str:
    """Return a distribution's name as PEP 503 compares it."""
    return re.sub(r"[-_.]+", "-", name).lower()


def load_snapshot(name: str = DEFAULT) -> Fingerprint:
    """Read a shipped snapshot: `# key: value` lines, then one `name==version` a line.

    Raises UsageError when there is no such snapshot.
    """
    path = resources.snapshots() / f"{name}.txt"
    if not path.is_file():
        known = ", ".join(sorted(file.stem for file in resources.snapshots().glob("*.txt")))
        raise UsageError(f"no image snapshot '{name}'", hint=f"there are: {known}")
    facts: dict[str, str] = {}
    distributions: dict[str, str] = {}
    for line in path.read_text().splitlines():
        if line.startswith("#"):
            key, colon, value = line[1:].partition(":")
            if colon:
                facts[key.strip()] = value.strip()
        elif "==" in line:
            distribution, _, version = line.strip().partition("==")
            distributions[normalise(distribution)] = version
    return Fingerprint(
        name=name,
        python=facts["python"],
        glibc=facts["glibc"],
        cuda=facts["cuda"],
        approximate=facts["approximate"] == "true",
        distributions=distributions,
    )

"""A Kaggle image as data: which distributions, at which versions, on which Python."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from kagflow import durable, resources
from kagflow.errors import DataError, UsageError

DEFAULT = "kaggle-image-v170-approx"
SCHEMA = 1
# Compiled against each other, and against the driver: the image's own or none.
_FIXED = re.compile(r"torch|torchvision|torchaudio|triton|numpy|nvidia(-.*)?")


@dataclass(frozen=True)
class Headers:
    """Hold what a distribution's METADATA says of others, and the names that it installs."""

    requires: tuple[str, ...] = ()
    extras: tuple[str, ...] = ()
    requires_python: str = ""
    tops: tuple[str, ...] = ()


@dataclass(frozen=True)
class Fingerprint:
    """Describe an image; `distributions` maps a normalised name to its full version.

    What only a probe tells is empty in an approximate one: `headers` by normalised name, the
    image's `digest`, the `accelerator` that it was seen with (cpu, gpu or tpu), the `arches` that
    its torch is compiled for, and the day on which it was `probed`.
    """

    name: str
    python: str
    glibc: str
    cuda: str
    approximate: bool
    distributions: dict[str, str]
    headers: Mapping[str, Headers] = field(default_factory=dict)
    digest: str = ""
    accelerator: str = ""
    arches: tuple[str, ...] = ()
    probed: str = ""

    def public_version(self, name: str) -> str | None:
        """Return a distribution's version without its `+local` part, None when absent.

        PEP 440: a constraint with a local part can't be met from an index.
        """
        version = self.distributions.get(normalise(name))
        return None if version is None else version.partition("+")[0]

    def content(self) -> str:
        """Return the first 12 hex digits of the SHA-256 of all but name and day: the same image."""
        body = {key: value for key, value in asdict(self).items() if key not in ("name", "probed")}
        return hashlib.sha256(json.dumps(body, sort_keys=True).encode()).hexdigest()[:12]


def normalise(name: str) -> str:
    """Return a distribution's name as PEP 503 compares it."""
    return re.sub(r"[-_.]+", "-", name).lower()


def is_fixed(name: str) -> bool:
    """Tell whether a distribution of the image is never replaced, whatever is allowed."""
    return _FIXED.fullmatch(normalise(name)) is not None


def load(name: str, folder: Path) -> Fingerprint:
    """Return the fingerprint of that name: probed and kept in `folder`, or shipped.

    Raises UsageError when there is neither, DataError for a damaged file.
    """
    file = folder / f"{name}.json"
    return read(file) if file.is_file() else load_snapshot(name, folder)


def read(file: Path) -> Fingerprint:
    """Read what `write` wrote; raises DataError when it is damaged."""
    try:
        value = json.loads(file.read_text())
        headers = {name: _headers(one) for name, one in value.pop("headers").items()}
        value.pop("schema")
        return Fingerprint(**{**value, "arches": tuple(value["arches"]), "headers": headers})
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise DataError(f"{file} is no fingerprint: {error!r}", hint=f"rm {file}") from None


def write(image: Fingerprint, folder: Path) -> Path:
    """Keep a probed fingerprint in `folder` under its name; return the file."""
    file = folder / f"{image.name}.json"
    durable.write_json(file, {"schema": SCHEMA, **asdict(image)})
    return file


def load_snapshot(name: str = DEFAULT, folder: Path | None = None) -> Fingerprint:
    """Read a shipped snapshot: `# key: value` lines, then one `name==version` a line.

    Raises UsageError when there is no such snapshot; it names those of `folder` as well.
    """
    path = resources.snapshots() / f"{name}.txt"
    if not path.is_file():
        files = [*resources.snapshots().glob("*.txt"), *(folder.glob("*.json") if folder else ())]
        known = ", ".join(sorted(file.stem for file in files))
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


def _headers(value: Mapping[str, Any]) -> Headers:
    return Headers(
        requires=tuple(value["requires"]),
        extras=tuple(value["extras"]),
        requires_python=value["requires_python"],
        tops=tuple(value["tops"]),
    )

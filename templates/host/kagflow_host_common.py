"""What the other files of this folder share."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path
from typing import Any


class Refused(Exception):  # noqa: N818 - an answer, not a fault of this program
    """What the other side has to know: a kind and a sentence."""

    def __init__(self, kind: str, text: str) -> None:
        super().__init__(text)
        self.kind, self.text = kind, text


def inside(root: Path | str, name: str) -> Path:
    """Return a path below a folder; a name that leads out of it is refused."""
    parts = Path(name).parts
    if not parts or Path(name).is_absolute() or ".." in parts or "\0" in name:
        raise Refused("name", f"{name!r} leads out of its folder")
    return Path(root).joinpath(*parts)


def sha256(path: Path) -> str:
    """Return the hexadecimal SHA-256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def write_json(path: Path, value: Any) -> None:
    """Write a whole file or nothing."""
    beside = path.parent / f".{path.name}.{os.getpid()}.tmp"
    with beside.open("w") as file:
        json.dump(value, file)
        file.flush()
        os.fsync(file.fileno())
    beside.replace(path)


def read_json(path: Path) -> Any:
    """Return what `write_json` wrote, None where there is nothing whole."""
    try:
        return json.loads(path.read_text())
    except (OSError, ValueError):
        return None

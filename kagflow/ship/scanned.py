"""Remember which files hold no credential: looking into a large wheel takes seconds each time."""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Sequence
from pathlib import Path

from kagflow import durable
from kagflow.ship import secrets, secrets_inside
from kagflow.ship.secrets import Leak
from kagflow.workspace import user_cache


def scan_once(file: Path, own: Sequence[str]) -> list[Leak]:
    """Return what `secrets.scan_file` finds; bytes that were clean are not scanned again.

    Other rules, or another credential of this machine, make every file unknown.
    """
    before = durable.sha256_file(file)
    mark = user_cache() / "scanned" / _mark(before, own)
    if mark.is_file():
        return []
    found = secrets.scan_file(file, own)
    # A file that changed meanwhile was not scanned under its present name.
    if not found and durable.sha256_file(file) == before:
        mark.parent.mkdir(parents=True, exist_ok=True)
        mark.touch()
    return found


def _mark(digest: str, own: Sequence[str]) -> str:
    whole = "\n".join([_rules(), digest, *sorted(own)])
    return hashlib.sha256(whole.encode()).hexdigest()


@functools.cache
def _rules() -> str:
    sources = [Path(str(module.__file__)).read_bytes() for module in (secrets, secrets_inside)]
    return hashlib.sha256(b"".join(sources)).hexdigest()

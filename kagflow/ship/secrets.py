"""Find credentials in what is about to leave this machine."""

from __future__ import annotations

import io
import re
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

# Each rule starts from a literal, so that gigabytes of weights cost one fast search each.
# In a JSON text inside another the quotes are escaped; `\\*"` takes both.
_QUOTE = rb'\\*"'
_USER = _QUOTE + rb"username" + _QUOTE + rb"\s*:\s*" + _QUOTE + rb'[^"\\]{1,80}' + _QUOTE
_KEY = _QUOTE + rb"key" + _QUOTE + rb"\s*:\s*" + _QUOTE + rb"[0-9a-f]{32}" + _QUOTE
_RULES: tuple[tuple[str, bytes, bytes], ...] = (
    ("a Kaggle token", b"KGAT_", rb"KGAT_[0-9A-Za-z_-]{16,}"),
    ("a kaggle.json", b"username", _USER + rb"\s*,\s*" + _KEY),
    ("a kaggle.json", b"username", _KEY + rb"\s*,\s*" + _USER),
    (
        "a Kaggle key",
        b"KAGGLE_",
        rb"KAGGLE_(?:KEY|API_TOKEN)" + rb"\\*[\"']?\s*[=:]\s*\\*[\"']?[0-9A-Za-z_-]{20,}",
    ),
    ("a Hugging Face token", b"hf_", rb"(?<![0-9A-Za-z])hf_[A-Za-z]{34}"),
    ("a GitHub token", b"ghp_", rb"ghp_[0-9A-Za-z]{36}"),
    ("a Google API key", b"AIza", rb"AIza[0-9A-Za-z_-]{35}"),
    ("a private key", b"PRIVATE KEY", rb"-----BEGIN [A-Z ]*PRIVATE KEY"),
    ("an AWS access key", b"AKIA", rb"(?<![0-9A-Za-z])AKIA[0-9A-Z]{16}"),
    ("a netrc password", b"password", rb"password\s+[0-9a-f]{40}"),
    ("an API key", b"sk-", rb"(?<![0-9A-Za-z_-])sk-[A-Za-z0-9_-]{20,}"),
)
_COMPILED = tuple((what, literal, re.compile(rule)) for what, literal, rule in _RULES)
_ZIP = b"PK\x03\x04"


@dataclass(frozen=True)
class Leak:
    """Say where a credential lies; `tail` is all of it that may be shown."""

    where: str
    what: str
    tail: str


def scan_file(path: Path) -> list[Leak]:
    """Scan a file's bytes, and those of the members of a zip, against the known rules.

    The rules: Kaggle, Hugging Face, GitHub, Google, AWS, OpenAI and wandb key forms, PEM keys.
    """
    return list(scan_bytes(path.read_bytes(), path.name))


def scan_bytes(data: bytes, where: str) -> Iterator[Leak]:
    """Yield each credential in `data`, looking into zip archives one level after another."""
    if data.startswith(_ZIP):
        yield from _scan_zip(data, where)
    for what, literal, rule in _COMPILED:
        if literal not in data:
            continue
        for match in rule.finditer(data):
            tail = re.sub(rb"[^0-9A-Za-z]", b"", match.group())[-4:].decode()
            yield Leak(where, what, tail)


def _scan_zip(data: bytes, where: str) -> Iterator[Leak]:
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            for name in archive.namelist():
                yield from scan_bytes(archive.read(name), f"{where}/{name}")
    except (zipfile.BadZipFile, RuntimeError, NotImplementedError):
        # Not readable as an archive here: its own bytes are scanned all the same.
        return

"""Find credentials in what is about to leave this machine.

Two searches: for the shapes of known kinds of keys, and for this machine's own credentials letter
by letter, raw and as base64. Both look into archives and through the usual disguises
(`secrets_inside`).
"""

from __future__ import annotations

import base64
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from kagflow.ship.secrets_inside import views

# Each rule starts from a literal, so that gigabytes of weights cost one fast search each.
# In a JSON text inside another the quotes are escaped; Python and YAML have other ones or none.
_QUOTE = rb"\\*[\"']?"
_GAP = rb"\s*[:=]\s*"
_USER = _QUOTE + rb"username" + _QUOTE + _GAP + _QUOTE + rb"[^\"'\\\s,]{1,80}" + _QUOTE
_KEY = _QUOTE + rb"key" + _QUOTE + _GAP + _QUOTE + rb"[0-9a-f]{32}(?![0-9a-f])"
_NEXT = rb"(?:\s|\\n|,)+"
_RULES: tuple[tuple[str, bytes, bytes], ...] = (
    ("a Kaggle token", b"KGAT_", rb"KGAT_[0-9A-Za-z_-]{16,}"),
    ("a kaggle.json", b"username", _USER + _NEXT + _KEY),
    ("a kaggle.json", b"username", _KEY + _QUOTE + _NEXT + _USER),
    (
        "a Kaggle key",
        b"KAGGLE_",
        rb"KAGGLE_(?:KEY|API_TOKEN)" + rb"[\\\"'\])]*[\s=:,]+[\\\"']*[0-9A-Za-z_-]{20,}",
    ),
    ("a Hugging Face token", b"hf_", rb"(?<![0-9A-Za-z])hf_[0-9A-Za-z]{34}"),
    ("a GitHub token", b"ghp_", rb"ghp_[0-9A-Za-z]{36}"),
    ("a Google API key", b"AIza", rb"AIza[0-9A-Za-z_-]{35}"),
    ("a private key", b"PRIVATE KEY", rb"-----BEGIN [A-Z ]*PRIVATE KEY"),
    ("an AWS access key", b"AKIA", rb"(?<![0-9A-Za-z])AKIA[0-9A-Z]{16}"),
    ("a netrc password", b"password", rb"password\s+[0-9a-f]{40}"),
    ("a wandb key", b"WANDB_", rb"WANDB_API_KEY[\\\"'\])]*[\s=:,]+[\\\"']*[0-9a-f]{40}"),
    ("an API key", b"sk-", rb"(?<![0-9A-Za-z_-])sk-[A-Za-z0-9_-]{20,}"),
)
_COMPILED = tuple((what, literal, re.compile(rule)) for what, literal, rule in _RULES)
# A shorter word may stand anywhere without being a secret.
_SHORTEST = 12


@dataclass(frozen=True)
class Leak:
    """Say where a credential lies; `tail` is all of it that may be shown."""

    where: str
    what: str
    tail: str


def scan_file(path: Path, own: Iterable[str] = ()) -> list[Leak]:
    """Scan a file's bytes, and what is packed in it, against the known rules and `own` secrets.

    The rules: Kaggle, Hugging Face, GitHub, Google, AWS, OpenAI and wandb key forms, PEM keys.
    A credential is told once for each place.
    """
    found = scan_bytes(path.read_bytes(), path.name, own)
    return list(dict.fromkeys(found))


def scan_bytes(data: bytes, where: str, own: Iterable[str] = ()) -> Iterator[Leak]:
    """Yield each credential in `data`, and in what is packed in it, one level after another."""
    forms = [(one, form) for one in own if len(one) >= _SHORTEST for form in _forms(one)]
    for place, view in views(data, where):
        seen: set[str] = set()
        for secret, form in forms:
            if form in view and secret not in seen:
                seen.add(secret)
                yield Leak(place, "this machine's own credential", secret[-4:])
        yield from _by_rule(view, place, own=[secret.encode() for secret in seen])


def _by_rule(view: bytes, place: str, own: Sequence[bytes]) -> Iterator[Leak]:
    for what, literal, rule in _COMPILED:
        if literal not in view:
            continue
        for match in rule.finditer(view):
            if any(secret in match.group() for secret in own):
                continue
            tail = re.sub(rb"[^0-9A-Za-z]", b"", match.group())[-4:].decode()
            yield Leak(place, what, tail)


def _forms(secret: str) -> Iterator[bytes]:
    """Yield a secret as it is, and as the middle of any base64 text that holds it.

    Where it begins in a group of three bytes decides the letters; those that also depend on what
    stands before and after it are cut off.
    """
    raw = secret.encode()
    yield raw
    for before in range(3):
        coded = base64.b64encode(b"\0" * before + raw)
        start = -(-8 * before // 6)
        whole = (8 * (before + len(raw))) // 6
        yield coded[start:whole]

"""Read a command's words: a bare one is a competition, `key=value` an override or a sweep."""

from __future__ import annotations

import itertools
import re
from collections.abc import Sequence
from dataclasses import dataclass

from kagflow.errors import UsageError


@dataclass(frozen=True)
class Words:
    """The competition that was named, if any, and the overrides in their order."""

    competition: str | None
    overrides: dict[str, str]


def split(words: Sequence[str]) -> Words:
    """Tell the competition from the overrides.

    Raises UsageError for a second competition or a key given twice.
    """
    bare = [word for word in words if "=" not in word]
    if len(bare) > 1:
        raise UsageError(
            f"more than one competition: {' '.join(bare)}", hint="overrides read key=value"
        )
    overrides: dict[str, str] = {}
    for word in words:
        key, equals, value = word.partition("=")
        if equals and key in overrides:
            raise UsageError(f"'{key}' is given twice", hint=f"sweep with {key}=a,b")
        if equals:
            overrides[key] = value
    return Words(bare[0] if bare else None, overrides)


def sweep(overrides: dict[str, str]) -> list[dict[str, str]]:
    """Return every combination of values: a comma outside brackets separates them."""
    keys = list(overrides)
    values = [options(overrides[key]) for key in keys]
    return [dict(zip(keys, chosen, strict=True)) for chosen in itertools.product(*values)]


def options(text: str) -> list[str]:
    """Split a value at the commas that stand outside brackets, braces and quotes."""
    parts, depth, quote = [""], 0, ""
    for letter in text:
        if quote:
            quote = "" if letter == quote else quote
        elif letter in "\"'":
            quote = letter
        elif letter in "[{(":
            depth += 1
        elif letter in ")}]":
            depth -= 1
        elif letter == "," and depth == 0:
            parts.append("")
            continue
        parts[-1] += letter
    return parts


def seconds(text: str) -> float:
    """Read a time span: 8h, 90m, 1h30m, 45s, or plain seconds.

    Raises UsageError for anything else, and for nothing at all.
    """
    number = r"(\d+(?:\.\d*)?)"
    found = re.fullmatch(f"(?:{number}h)?(?:{number}m)?(?:{number}s?)?", text.strip().lower())
    parts = [float(part or 0) for part in found.groups()] if found else []
    if not any(parts):
        raise UsageError(f"'{text}' is no time span", hint="write 8h, 90m, 1h30m or seconds")
    return parts[0] * 3600 + parts[1] * 60 + parts[2]


def span(duration: float) -> str:
    """Write seconds as people say them: 45 s, 12 min, 1.5 h."""
    if duration < 90:
        return f"{duration:.0f} s"
    return f"{duration / 60:.0f} min" if duration < 5400 else f"{duration / 3600:.1f} h"


def size(text: str) -> int:
    """Read a number of bytes: 6GB, 6GiB, 800MB or plain bytes; GB are 10^9.

    Raises UsageError for anything else, and for nothing at all.
    """
    found = re.fullmatch(r"(\d+(?:\.\d*)?)\s*([kmgt]?)(i?)b?", text.strip().lower())
    if found is None or not float(found[1]):
        raise UsageError(f"'{text}' is no amount of memory", hint="write 6GB or 800MB")
    power = " kmgt".index(found[2] or " ")
    return int(float(found[1]) * (1024 if found[3] else 1000) ** power)

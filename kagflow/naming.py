"""Name runs and folds as folders: readable, and never the same for two different things."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from typing import Any, Literal
from urllib.parse import quote

from kagflow.errors import UsageError

Fold = int | Literal["full"]

FULL: Literal["full"] = "full"
# Of 255 bytes that a file system gives a name; a pack's files add `.fold0.safetensors` to it.
LONGEST = 200
_DIGEST = 12
# Beyond letters, digits and `_.-~`: what lists and mappings are written with.
_KEPT = ":@,[]{}"


def run_name(recipe: str, changes: Mapping[str, Any]) -> str:
    """Return `recipe+key=value+...` for the values that the checked recipe has at these keys.

    Keys are sorted and values written in one form, so that 1e-3 and 0.001 name the same run;
    whatever else could be misread, like a slash or a plus, stands as %2F. Names that are too long
    for a folder end in a hash of the whole.
    """
    parts = [f"{_safe(key)}={_safe(spell(value))}" for key, value in sorted(changes.items())]
    return _shortened("+".join([_safe(recipe), *parts]))


def given_name(name: str) -> str:
    """Return a name that the user chose.

    Raises UsageError where it cannot be one folder's name.
    """
    if not name or name.startswith(".") or "/" in name or not name.isprintable():
        raise UsageError(f"name={name} cannot be a folder's name", hint="letters, digits, - and _")
    if len(name.encode()) > LONGEST:
        raise UsageError(f"name={name[:20]}... is longer than {LONGEST} bytes")
    return name


def spell(value: Any, *, inside: bool = False) -> str:
    """Write a YAML value in its one short form, without spaces; `inside` a list or mapping."""
    if isinstance(value, Mapping):
        pairs = (f"{spell(k, inside=True)}:{spell(value[k], inside=True)}" for k in sorted(value))
        return "{" + ",".join(pairs) + "}"
    if isinstance(value, list | tuple):
        return "[" + ",".join(spell(one, inside=True) for one in value) + "]"
    if isinstance(value, float):
        return _number(value)
    return _word(value, inside=inside) if isinstance(value, str) else json.dumps(value)


def fold_folder(fold: Fold) -> str:
    """Return the folder of one fold of a run."""
    return FULL if fold == FULL else f"fold{fold}"


def fold_order(fold: Fold) -> tuple[int, int]:
    """Sort key: folds by number, then the training on everything."""
    return (1, 0) if fold == FULL else (0, int(fold))


def _number(value: float) -> str:
    plain = f"{value:.0f}" if value.is_integer() and abs(value) < 1e15 else repr(value)
    forms = (f"{value:.{digits}e}" for digits in range(17))
    digits, _, power = next((one for one in forms if float(one) == value), "").partition("e")
    return min(plain, f"{digits}e{int(power)}", key=len) if power else plain


def _word(value: str, *, inside: bool) -> str:
    # Not at the top: --help would wait for it.
    from kagflow.yaml_file import parse_value

    # Quoted where YAML would read something else ('1' is not 1), or a list or mapping would end.
    usual = r"[A-Za-z_][\w./+=-]*" if inside else r"[A-Za-z_][\w./+=:-]*"
    plain = re.fullmatch(usual, value) and parse_value(value) == value
    return value if plain else json.dumps(value, ensure_ascii=False)


def _safe(text: str) -> str:
    # The tilde marks a shortened name.
    return quote(text, safe=_KEPT).replace("~", "%7E")


def _shortened(name: str) -> str:
    if len(name) <= LONGEST:
        return name
    digest = hashlib.sha256(name.encode()).hexdigest()[:_DIGEST]
    return f"{name[: LONGEST - _DIGEST - 1]}~{digest}"

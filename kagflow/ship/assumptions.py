"""What kagflow believes of Kaggle without having seen it, and what holds until somebody looks.

No test here can prove how the real service behaves: the embedded one and the client share one
reading of it. So every belief stands in one table with the careful value that holds meanwhile, and
`kagflow doctor --live` replaces it by what it found. Answers lie in the profile's own client
folder: what the embedded Kaggle says never becomes a belief about the real one.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

from kagflow import durable
from kagflow.errors import DataError

FILE = "answers.json"
TABLE = "assumptions.yaml"
State = Literal["unknown", "verified", "contradicted"]


@dataclass(frozen=True)
class Assumption:
    """State one belief; `until` says what is done while it is unknown.

    `default` is the careful value. `step` is the step of `doctor --live` that tells, None where
    none can. `each` names what there is one answer for, where it is not one for all.
    """

    name: str
    believed: str
    default: Any
    until: str
    step: int | None
    each: str = ""


@dataclass(frozen=True)
class Answer:
    """Say what was found of one assumption, when, and for which `key` where there are several."""

    name: str
    state: State
    value: Any
    found: str
    key: str = ""
    date: str = ""
    account: str = ""


@lru_cache
def table() -> Mapping[str, Assumption]:
    """Return every assumption by name, in the order of the steps that tell."""
    import yaml

    content = yaml.safe_load(Path(__file__).with_name(TABLE).read_text())
    return {name: Assumption(name, **one) for name, one in content.items()}


def value(state: Path, name: str, key: str = "") -> Any:
    """Return what holds for one assumption: the answer where there is one, else the default."""
    answer = read(state).get(_id(name, key))
    return table()[name].default if answer is None else answer.value


def known(state: Path, name: str, key: str = "") -> Any:
    """Return what was found of one assumption, None while nobody looked."""
    answer = read(state).get(_id(name, key))
    return None if answer is None else answer.value


def read(state: Path) -> dict[str, Answer]:
    """Return the answers in a client folder, by name, or name@key.

    Raises DataError for a file that can't be read.
    """
    path = state / FILE
    try:
        content = json.loads(path.read_text())
        return {name: Answer(**one) for name, one in content["answers"].items()}
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise DataError(f"{path} can't be read: {error}", hint=f"rm {path}") from None


def note(state: Path, answers: list[Answer]) -> None:
    """Add answers to a client folder; a later one replaces an earlier one."""
    known = read(state) | {_id(one.name, one.key): one for one in answers if one.state != "unknown"}
    path = state / FILE
    path.parent.mkdir(parents=True, exist_ok=True)
    durable.write_json(path, {"answers": {name: asdict(one) for name, one in known.items()}})


def _id(name: str, key: str) -> str:
    return f"{name}@{key}" if key else name

"""A YAML file and dotted overrides into one validated model, every fault of both told at once."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from contextlib import suppress
from itertools import pairwise
from pathlib import Path
from typing import Any, TypeVar, get_args

from pydantic import BaseModel, ValidationError

from kagflow.errors import UsageError
from kagflow.resolve import Fault
from kagflow.yaml_file import parse_value, read_yaml

Model = TypeVar("Model", bound=BaseModel)


def load(path: Path, model: type[Model], overrides: Sequence[str] = ()) -> Model:
    """Read a YAML file, lay overrides over it and validate the whole once."""
    found, faults = examine(path, model, overrides)
    if faults or found is None:
        told = [f"{one.what}, {one.mend}" if one.mend else one.what for one in faults]
        raise UsageError(f"{path.name}: {'; '.join(told)}", hint=f"mend {path} or the override")
    return found


def examine(
    path: Path, model: type[Model], overrides: Sequence[str] = ()
) -> tuple[Model | None, list[Fault]]:
    """Return what `load` does, and every fault of file and overrides.

    Where there are faults the config is what remains without the faulty keys, None where that is
    none. Raises UsageError only where the file or an override cannot be read at all.
    """
    values = read_yaml(path)
    for item in overrides:
        _set(values, item)
    try:
        return model.model_validate(values), []
    except ValidationError as error:
        for one in error.errors():
            _drop(values, one["loc"])
        with suppress(ValidationError):
            return model.model_validate(values), [_fault(one, model) for one in error.errors()]
        return None, [_fault(one, model) for one in error.errors()]


def _set(values: dict[str, Any], item: str) -> None:
    key, equals, text = item.partition("=")
    if not equals or not key:
        raise UsageError(f"'{item}' is no override", hint="write key=value, e.g. optimiser.lr=3e-4")
    *parents, last = key.split(".")
    place = values
    for parent in parents:
        inner = place.setdefault(parent, {})
        if not isinstance(inner, dict):
            raise UsageError(f"'{key}': '{parent}' is a value, not a section")
        place = inner
    place[last] = parse_value(text)


def _drop(values: dict[str, Any], location: Sequence[Any]) -> None:
    """Take out the value at a location, or the innermost mapping's key that leads to it."""
    place: Any = values
    for part, following in pairwise((*location, None)):
        inner = place.get(part) if isinstance(place, dict) else None
        if not isinstance(inner, dict) or following not in inner:
            break
        place = inner
    if isinstance(place, dict):
        place.pop(part, None)


def _fault(error: Any, model: type[BaseModel]) -> Fault:
    where = ".".join(str(part) for part in error["loc"])
    if error["type"] == "missing":
        return Fault(where, f"'{where}' is missing")
    if error["type"] != "extra_forbidden":
        return Fault(where, f"'{where}': {error['msg']} (got {error['input']!r})")
    options = _fields_at(model, error["loc"][:-1])
    near = difflib.get_close_matches(str(error["loc"][-1]), options, n=1)
    advice = f"did you mean '{near[0]}'?" if near else f"there are: {', '.join(sorted(options))}"
    return Fault(where, f"unknown key '{where}'", advice)


def _fields_at(model: type[BaseModel], location: Sequence[Any]) -> list[str]:
    for part in location:
        annotation = model.model_fields[part].annotation if part in model.model_fields else None
        inner = [annotation, *get_args(annotation)]
        models = [one for one in inner if isinstance(one, type) and issubclass(one, BaseModel)]
        if not models:
            return []
        model = models[0]
    return list(model.model_fields)

"""Find code by name: the only place that does. Travels to Kaggle.

A bare name is one of the room's built-ins; `package.module:attribute` is the user's own object.
"""

from __future__ import annotations

import difflib
import importlib
import inspect
from collections.abc import Mapping
from typing import Any

from kagflow.errors import UsageError


def resolve(target: str, builtins: Mapping[str, str]) -> Any:
    """Return the object that `target` names.

    Raises UsageError when there is none; an error inside the user's module is raised as it is.
    """
    if ":" not in target:
        if target not in builtins:
            raise UsageError(f"unknown name '{target}'", hint=_suggest(target, builtins))
        target = builtins[target]
    module_name, _, attribute = target.partition(":")
    module = _import(module_name, target)
    try:
        return getattr(module, attribute)
    except AttributeError:
        names = [name for name in vars(module) if not name.startswith("_")]
        raise UsageError(
            f"'{module_name}' has no '{attribute}' (from '{target}')",
            hint=_suggest(attribute, names),
        ) from None


def build(spec: Mapping[str, Any], builtins: Mapping[str, str], **extra: Any) -> Any:
    """Call the object that `spec["target"]` names with `spec["kwargs"]` and `extra`.

    Raises UsageError naming every argument that the object does not take, or lacks.
    """
    target, kwargs = str(spec["target"]), dict(spec.get("kwargs") or {})
    found = resolve(target, builtins)
    check_arguments(target, found, {**kwargs, **extra})
    return found(**kwargs, **extra)


def check_arguments(target: str, found: Any, kwargs: Mapping[str, Any]) -> None:
    """Bind keyword arguments to a callable's signature, so that a misfit names itself."""
    try:
        signature = inspect.signature(found)
    except ValueError:
        return
    try:
        signature.bind(**kwargs)
    except TypeError as error:
        takes = ", ".join(signature.parameters)
        raise UsageError(f"'{target}': {error}", hint=f"it takes: {takes}") from None


def _import(name: str, target: str) -> Any:
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        # A module missing inside the user's file is their traceback, not a misspelt target.
        if error.name is None or not (name == error.name or name.startswith(f"{error.name}.")):
            raise
        raise UsageError(
            f"no module '{name}' (from '{target}')",
            hint="targets read package.module:attribute, with competitions/ on the path",
        ) from None


def _suggest(word: str, names: Mapping[str, str] | list[str]) -> str:
    near = difflib.get_close_matches(word, list(names), n=1)
    options = ", ".join(sorted(names))
    return f"did you mean '{near[0]}'? there are: {options}" if near else f"there are: {options}"

"""Find code by name: the only place that does. Travels to Kaggle.

A bare name is one of the room's built-ins; `package.module:attribute` is the user's own object.
"""

from __future__ import annotations

import difflib
import importlib
import inspect
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from kagflow.errors import UsageError

Parameters = Mapping[str, inspect.Parameter]

_BY_NAME = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)


@dataclass(frozen=True)
class Fault:
    """One thing wrong with a description: at which dotted `key`, `what`, and how to `mend` it.

    `trace` holds the lines of the user's own code that raised.
    """

    key: str
    what: str
    mend: str = ""
    trace: tuple[str, ...] = ()


def resolve(target: str, builtins: Mapping[str, str]) -> Any:
    """Return the object that `target` names.

    Raises UsageError when there is none; an error inside the user's module is raised as it is.
    """
    if ":" not in target:
        if target not in builtins:
            raise UsageError(
                f"unknown name '{target}'",
                hint=_near(target, builtins, f"there are: {', '.join(sorted(builtins))}"),
            )
        target = builtins[target]
    module_name, _, attribute = target.partition(":")
    module = _import(module_name, target)
    try:
        return getattr(module, attribute)
    except AttributeError:
        names = [name for name in vars(module) if not name.startswith("_")]
        own = [n for n in names if getattr(vars(module)[n], "__module__", "") == module_name]
        raise UsageError(
            f"'{module_name}' has no '{attribute}' (from '{target}')",
            hint=_near(attribute, names, f"there are: {', '.join(sorted(own or names))}"),
        ) from None


def build(spec: Mapping[str, Any], builtins: Mapping[str, str], **extra: Any) -> Any:
    """Call the object that `spec["target"]` names with `spec["kwargs"]` and `extra`.

    Raises UsageError naming every argument that the object does not take, or lacks.
    """
    target, kwargs = str(spec["target"]), dict(spec.get("kwargs") or {})
    found = resolve(target, builtins)
    check_arguments(target, found, kwargs, extra)
    return found(**kwargs, **extra)


def check_arguments(
    target: str, found: Any, kwargs: Mapping[str, Any], given: Collection[str] = ()
) -> None:
    """Bind keyword arguments, and those that kagflow gives, to a callable's signature.

    Raises UsageError naming every argument that it does not take, or lacks.
    """
    faults = misfits(target, found, kwargs, given)
    if faults:
        raise UsageError("; ".join(one.what for one in faults), hint=faults[0].mend)


def misfits(
    target: str, found: Any, kwargs: Mapping[str, Any], given: Collection[str] = ()
) -> list[Fault]:
    """List what stands between a callable and a call with `kwargs` and what kagflow gives."""
    if not callable(found):
        what = f"'{target}' is no function or class but {type(found).__name__}"
        return [Fault("target", what, "name a callable")]
    try:
        parameters = inspect.signature(found).parameters
    except ValueError:
        return []
    return [
        *_unknown(target, parameters, kwargs, given),
        *_missing(target, parameters, kwargs, given),
    ]


def takes(found: Any, argument: str) -> bool:
    """Tell whether a callable takes a keyword argument."""
    try:
        parameters = inspect.signature(found).parameters
    except ValueError:
        return False
    return argument in parameters or _takes_any(parameters)


def _unknown(
    target: str, parameters: Parameters, kwargs: Mapping[str, Any], given: Collection[str]
) -> Iterator[Fault]:
    named = [one.name for one in parameters.values() if one.kind in _BY_NAME]
    own = [name for name in named if name not in given]
    for name in given:
        if name not in named and not _takes_any(parameters):
            what = f"'{target}' takes no '{name}', which kagflow gives"
            yield Fault("target", what, f"add a parameter '{name}' to it")
    for name in kwargs:
        if name in given:
            yield Fault(f"kwargs.{name}", f"kagflow itself gives '{name}'", "leave it out")
        elif name not in named and not _takes_any(parameters):
            what = f"'{target}' takes no '{name}'"
            yield Fault(f"kwargs.{name}", what, _near(name, own, f"it takes: {', '.join(own)}"))


def _missing(
    target: str, parameters: Parameters, kwargs: Mapping[str, Any], given: Collection[str]
) -> Iterator[Fault]:
    for name, one in parameters.items():
        if one.default is not one.empty or one.kind in (one.VAR_KEYWORD, one.VAR_POSITIONAL):
            continue
        if one.kind is one.POSITIONAL_ONLY:
            what = f"'{target}' takes '{name}' by position alone"
            yield Fault("target", what, "let it be given by name")
        elif name not in kwargs and name not in given:
            yield Fault("kwargs", f"'{target}' needs '{name}'", f"add kwargs: {{{name}: ...}}")


def _takes_any(parameters: Parameters) -> bool:
    return any(one.kind is one.VAR_KEYWORD for one in parameters.values())


def _near(word: str, names: Collection[str], options: str) -> str:
    near = difflib.get_close_matches(word, list(names), n=1)
    return f"did you mean '{near[0]}'? {options}" if near else options


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

"""The names inside the built-in models' arguments: architectures, encoders, what they take."""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from kagflow.errors import UsageError
from kagflow.infer.models import nearest
from kagflow.infer.models_smp import architecture, check_encoder, smp_model
from kagflow.infer.models_timm import check_name, timm_model
from kagflow.resolve import Fault

# What kagflow gives a model itself, and how smp's classes call what a recipe calls otherwise.
GIVEN = ("self", "classes", "encoder_name", "encoder_weights", "kwargs")


def model_names(spec: Mapping[str, Any]) -> list[Fault]:
    """Return every fault of an smp or timm model's kwargs; nothing of any other target."""
    kwargs = dict(spec.get("kwargs") or {})
    if spec["target"] == "smp":
        return list(_smp(kwargs))
    if spec["target"] == "timm":
        name = str(kwargs.get("name", _default(timm_model, "name")))
        return list(_asked("name", lambda: check_name(name)))
    return []


def _smp(kwargs: dict[str, Any]) -> Iterator[Fault]:
    arch = str(kwargs.get("arch", _default(smp_model, "arch")))
    encoder = str(kwargs.get("encoder", _default(smp_model, "encoder")))
    free = bool(kwargs.get("noncommercial", False))
    unknown = list(_asked("arch", lambda: architecture(arch)))
    yield from unknown
    yield from _asked("encoder", lambda: check_encoder(encoder, noncommercial=free))
    if unknown:
        return
    name, known = architecture(arch)
    own, theirs = (inspect.signature(one).parameters for one in (smp_model, known.__init__))
    takes = [word for word in [*own, *theirs] if word not in GIVEN]
    for word in kwargs:
        # timm's encoders take arguments of their own: only what looks like another is a fault.
        near = difflib.get_close_matches(word, takes, n=1, cutoff=0.8)
        if word not in takes and (near or not encoder.startswith("tu-")):
            yield Fault(
                f"model.kwargs.{word}", f"smp {name} takes no '{word}'", nearest(word, takes)
            )


def _asked(key: str, ask: Callable[[], object]) -> Iterator[Fault]:
    try:
        ask()
    except UsageError as error:
        yield Fault(f"model.kwargs.{key}", error.message, error.hint)


def _default(made: Callable[..., Any], name: str) -> Any:
    return inspect.signature(made).parameters[name].default

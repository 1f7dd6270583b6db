"""Build the parts of a recipe once, without data, and look at what came."""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import nn

from kagflow.errors import KagflowError
from kagflow.frames import own_lines
from kagflow.infer.image import INPUTS
from kagflow.infer.models import build_model
from kagflow.learn.augment import AUGMENTS
from kagflow.learn.losses import LOSSES
from kagflow.learn.optimiser import SCHEDULES, build_optimiser
from kagflow.learn.pretrained import load_packaged
from kagflow.learn.sampler import SAMPLERS
from kagflow.learn.weights import load_start
from kagflow.resolve import Fault, build
from kagflow.task.spec import TaskSpec

Spec = Mapping[str, Any]
Fits = Callable[[Any, str], list[Fault]]
STEPS = 10
_RAISED = object()


def told(key: str, target: str, error: Exception) -> Fault:
    """Tell of an error: kagflow's own in its words, any other with the user's own lines."""
    if isinstance(error, KagflowError):
        return Fault(key, error.message, error.hint)
    what = f"'{target}' raised {type(error).__name__}: {error}"
    return Fault(key, what, "mend the lines shown", own_lines(error))


class Parts:
    """Build the parts of a recipe one by one, each fault told apart."""

    def __init__(self, recipe: Spec, spec: TaskSpec) -> None:
        self.recipe, self.spec = recipe, spec
        self.found: list[Fault] = []

    def faults(self, sound: set[str]) -> list[Fault]:
        """Build those parts whose arguments bind."""
        recipe = self.recipe
        makers: dict[str, tuple[Callable[[], Any], Fits]] = {
            "model": (self._model, _is_module),
            "input": (lambda: build(recipe["input"], INPUTS), _is_input),
            "loss": (lambda: build(recipe["loss"], LOSSES), _is_loss),
            "sampler": (lambda: build(recipe["sampler"], SAMPLERS), _is_sampler),
            "augment": (self._augment, _is_augment),
            "optimiser": (lambda: build_optimiser(nn.Linear(1, 1), recipe["optimiser"]), _anything),
            "schedule": (self._schedule, _anything),
        }
        for key, (make, fits) in makers.items():
            if key in sound:
                made = self._part(key, make)
                wrong = [] if made is _RAISED else fits(made, str(recipe[key]["target"]))
                self.found += [replace(one, key=key) for one in wrong]
                if key == "model" and isinstance(made, nn.Module):
                    self._part("weights", partial(self._weights, made))
        return self.found

    def _part(self, key: str, make: Callable[[], Any]) -> Any:
        """Make one part; _RAISED where it raised."""
        target = self.recipe[key]["target"] if isinstance(self.recipe[key], Mapping) else key
        try:
            return make()
        except Exception as error:  # noqa: BLE001 - as above
            self.found.append(told(key, str(target), error))
            return _RAISED

    def _model(self) -> nn.Module:
        return build_model(self.recipe["model"], classes=len(self.spec.classes))

    def _weights(self, model: nn.Module) -> None:
        """Load what lies on this machine; a hub is not asked."""
        weights = self.recipe["weights"]
        if weights == "packaged":
            load_packaged(model, self.recipe["model"])
        elif weights not in ("none", "imagenet"):
            load_start(model, Path(weights))

    def _augment(self) -> Any:
        with warnings.catch_warnings(record=True) as said:
            warnings.simplefilter("always")
            made = build(self.recipe["augment"], AUGMENTS)
        # albumentations only warns of an argument that it then leaves unused.
        unused = [str(one.message) for one in said if "are not valid for" in str(one.message)]
        self.found += [Fault("augment", one, "see the transform's own arguments") for one in unused]
        return made

    def _schedule(self) -> Any:
        optimiser = torch.optim.AdamW(nn.Linear(1, 1).parameters())
        return build(self.recipe["schedule"], SCHEDULES, optimiser=optimiser, steps=STEPS)


def _anything(made: Any, target: str) -> list[Fault]:
    del made, target
    return []


def _is_module(made: Any, target: str) -> list[Fault]:
    if isinstance(made, nn.Module):
        return []
    return [Fault("", f"'{target}' returned a {type(made).__name__}", "return a torch.nn.Module")]


def _is_input(made: Any, target: str) -> list[Fault]:
    return _called(made, target, ("image", "metadata"))


def _is_loss(made: Any, target: str) -> list[Fault]:
    return _called(made, target, ("outputs", "target"))


def _is_sampler(made: Any, target: str) -> list[Fault]:
    if callable(getattr(made, "draw", None)) and isinstance(getattr(made, "centred", None), float):
        return []
    what = f"'{target}' made a {type(made).__name__} without draw() or centred"
    return [Fault("", what, "see kagflow.learn.sampler.Sampler: a method draw, a float centred")]


def _is_augment(made: Any, target: str) -> list[Fault]:
    if callable(made) and hasattr(made, "set_random_state"):
        return []
    what = f"'{target}' returned a {type(made).__name__}"
    return [Fault("", what, "return an albumentations.Compose, which draws by the sample's seed")]


def _called(made: Any, target: str, words: Sequence[str]) -> list[Fault]:
    """Tell whether an object can be called with so many arguments by position."""
    call = made.forward if isinstance(made, nn.Module) else made
    try:
        inspect.signature(call).bind(*words)
    except ValueError:
        return []
    except TypeError:
        what = f"'{target}' made a {type(made).__name__} that takes no ({', '.join(words)})"
        return [Fault("", what, f"it is called with ({', '.join(words)})")]
    return []

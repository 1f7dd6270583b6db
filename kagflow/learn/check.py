"""Find what is wrong with a recipe without data: every name, every argument, every part built."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from kagflow.infer.image import INPUTS
from kagflow.infer.models import MODELS
from kagflow.learn.assets import NAME
from kagflow.learn.augment import AUGMENTS
from kagflow.learn.check_names import model_names
from kagflow.learn.check_parts import Parts, told
from kagflow.learn.losses import LOSSES
from kagflow.learn.optimiser import OPTIMISERS, SCHEDULES
from kagflow.learn.sampler import SAMPLERS
from kagflow.resolve import Fault, misfits, resolve, takes
from kagflow.task.metric import METRICS
from kagflow.task.spec import TaskSpec

Spec = Mapping[str, Any]


@dataclass(frozen=True)
class Seam:
    """A place in a recipe where code is named.

    `given` are the arguments that kagflow passes itself, `offered` those that it passes to a
    target which takes them.
    """

    key: str
    builtins: Mapping[str, str]
    given: tuple[str, ...] = ()
    offered: tuple[str, ...] = ()

    def faults(self, spec: Spec) -> list[Fault]:
        """Find the target and bind its arguments."""
        target, kwargs = str(spec["target"]), dict(spec.get("kwargs") or {})
        try:
            found = resolve(target, self.builtins)
            offered = [name for name in self.offered if takes(found, name)]
        except Exception as error:  # noqa: BLE001 - a plug-in may raise anything
            return [told(f"{self.key}.target", target, error)]
        faults = misfits(target, found, kwargs, [*self.given, *offered])
        return [replace(one, key=f"{self.key}.{one.key}") for one in faults]


SEAMS = (
    Seam("model", MODELS, ("classes",), ("encoder_weights",)),
    Seam("input", INPUTS),
    Seam("loss", LOSSES),
    Seam("sampler", SAMPLERS, offered=("past",)),
    Seam("augment", AUGMENTS),
    Seam("optimiser", OPTIMISERS, ("params", "lr", "weight_decay")),
    Seam("schedule", SCHEDULES, ("optimiser", "steps")),
)


def recipe_faults(recipe: Spec, spec: TaskSpec) -> list[Fault]:
    """Return everything wrong with a dumped config.Recipe; parts that bind are built once.

    Samplers that read earlier runs are not built, assets not made; weights are read where they
    lie on this machine.
    """
    bound = {seam.key: seam.faults(recipe[seam.key]) for seam in SEAMS}
    bound["model"] = bound["model"] or model_names(recipe["model"])
    bound["loss"] = bound["loss"] or _terms(recipe["loss"])
    sound = {key for key, faults in bound.items() if not faults}
    if "sampler" in sound and takes(resolve(recipe["sampler"]["target"], SAMPLERS), "past"):
        sound.remove("sampler")
    named = [fault for faults in bound.values() for fault in faults]
    built = Parts(recipe, spec).faults(sound)
    return [*_consistent(recipe, spec), *named, *_assets(recipe["assets"]), *built]


def metric_faults(spec: TaskSpec) -> list[Fault]:
    """Try the competition's metric on counts of nothing: (2, C) int64."""
    try:
        metric = resolve(spec.metric, METRICS)
        nothing = np.zeros((2, len(spec.classes)), np.int64)
        scores = np.asarray(metric(nothing, nothing, nothing))
    except Exception as error:  # noqa: BLE001 - as above
        return [told("metric", spec.metric, error)]
    if scores.shape in ((2, len(spec.classes)), (2,)):
        return []
    what = f"'{spec.metric}' returned shape {scores.shape} for counts of (2, {len(spec.classes)})"
    return [Fault("metric", what, "return scores (N, C), or (N,) one an image")]


def target_faults(key: str, target: str, given: Sequence[str] = ()) -> list[Fault]:
    """Find one target of a competition and bind what kagflow gives it."""
    faults = Seam(key, {}, tuple(given)).faults({"target": target})
    return [replace(one, key=key) for one in faults]


def _consistent(recipe: Spec, spec: TaskSpec) -> Iterator[Fault]:
    target, label = recipe["model"]["target"], recipe["predicts"] == "label"
    if recipe["weights"] == "imagenet" and not _takes_weights(str(target)):
        what = f"'{target}' takes no encoder_weights, but imagenet was asked for"
        yield Fault("weights", what, "weights: none, or add encoder_weights to the model")
    if spec.kind != "segmentation" and not label:
        yield Fault("predicts", "the competition has no masks to predict", "predicts: label")
    if target == "timm" and not label:
        yield Fault("predicts", "timm's models give no masks", "predicts: label, or target: smp")
    if target == "smp" and label and not recipe["model"]["kwargs"].get("label_head"):
        yield Fault("predicts", "this model gives masks alone", "model.kwargs.label_head: true")


def _takes_weights(target: str) -> bool:
    try:
        return takes(resolve(target, MODELS), "encoder_weights")
    except Exception:  # noqa: BLE001 - told with the target
        return True


def _assets(assets: Mapping[str, Spec]) -> list[Fault]:
    faults: list[Fault] = []
    for name, spec in assets.items():
        if not NAME.fullmatch(name):
            what = f"asset '{name}' cannot be a file's name"
            faults.append(Fault(f"assets.{name}", what, "letters, digits, _ and - make its name"))
        faults += Seam(f"assets.{name}", {}, ("images",)).faults(spec)
    return faults


def _terms(loss: Spec) -> list[Fault]:
    """Bind the losses inside a sum, each by its own key."""
    terms = (loss.get("kwargs") or {}).get("terms") if loss["target"] == "sum" else None
    faults: list[Fault] = []
    for at, term in enumerate(terms if isinstance(terms, list | tuple) else ()):
        if isinstance(term, Mapping) and "target" in term:
            seam = Seam(f"loss.kwargs.terms.{at}", LOSSES)
            faults += [*seam.faults(term), *_terms(term)]
    return faults

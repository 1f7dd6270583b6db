"""Optimisers and schedules."""

from __future__ import annotations

import inspect
import math
from collections.abc import Mapping
from typing import Any

from torch import nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR, LRScheduler, OneCycleLR

from kagflow import resolve

OPTIMISERS = {"adamw": "torch.optim:AdamW", "sgd": "torch.optim:SGD"}
SCHEDULES = {
    "cosine": "kagflow.learn.optimiser:cosine",
    "onecycle": "kagflow.learn.optimiser:onecycle",
    "constant": "kagflow.learn.optimiser:constant",
}


def build_optimiser(
    model: nn.Module, recipe: Mapping[str, Any], loss: nn.Module | None = None
) -> Optimizer:
    """Build the recipe's optimiser; any class of `torch.optim`'s form will do.

    Encoder parameters get `lr * encoder_lr`; norms and biases get no weight decay (1-d tensors),
    nor do the parameters of a loss, which would drift towards nothing. torch's fused kernels are
    taken where the optimiser has them.
    """
    lr, decay = float(recipe["lr"]), float(recipe["weight_decay"])
    groups = []
    for encoder in (True, False):
        for flat in (True, False):
            chosen = [
                parameter
                for name, parameter in model.named_parameters()
                if parameter.requires_grad
                and is_encoder(model, name) == encoder
                and (parameter.ndim <= 1) == flat
            ]
            scaled = lr * float(recipe["encoder_lr"]) if encoder else lr
            groups.append({"params": chosen, "lr": scaled, "weight_decay": 0.0 if flat else decay})
    own = [] if loss is None else [one for one in loss.parameters() if one.requires_grad]
    groups.append({"params": own, "lr": lr, "weight_decay": 0.0})
    kwargs = dict(recipe.get("kwargs") or {})
    takes = inspect.signature(resolve.resolve(recipe["target"], OPTIMISERS)).parameters
    if "fused" in takes and not {"fused", "foreach"} & kwargs.keys():
        kwargs["fused"] = True
    spec = {"target": recipe["target"], "kwargs": kwargs}
    groups = [group for group in groups if group["params"]]
    built: Optimizer = resolve.build(spec, OPTIMISERS, params=groups, lr=lr, weight_decay=decay)
    return built


def is_encoder(model: nn.Module, name: str) -> bool:
    """Tell whether a parameter belongs to the part that pretrained weights fill.

    smp keeps it under `encoder.`; a timm classifier is encoder but for its last layer.
    """
    find_last: Any = getattr(model, "get_classifier", None)
    if find_last is None:
        return "encoder" in name.split(".")
    last: nn.Module = find_last()
    inside = {id(parameter) for parameter in last.parameters()}
    return id(model.get_parameter(name)) not in inside


def cosine(
    optimiser: Optimizer, *, steps: int, warmup: float = 0.05, floor: float = 0.01
) -> LRScheduler:
    """Rise linearly over the share `warmup` of steps, then fall along a cosine to `floor`."""
    rising = max(1, round(steps * warmup)) if warmup else 0

    def factor(step: int) -> float:
        if step < rising:
            return (step + 1) / (rising + 1)
        along = min(1.0, (step - rising) / max(1, steps - rising))
        return floor + (1 - floor) * 0.5 * (1 + math.cos(math.pi * along))

    return LambdaLR(optimiser, factor)


def onecycle(
    optimiser: Optimizer,
    *,
    steps: int,
    warmup: float = 0.3,
    start: float = 25.0,
    end: float = 1e4,
) -> LRScheduler:
    """Rise from lr / `start` to lr over the share `warmup`, fall to the first lr / `end`.

    torch's OneCycleLR (Smith and Topin 2018) with its defaults; the momentum moves against it
    where the optimiser has one.
    """
    groups = optimiser.param_groups
    return OneCycleLR(
        optimiser,
        max_lr=[group["lr"] for group in groups],
        total_steps=steps,
        pct_start=warmup,
        div_factor=start,
        final_div_factor=end,
        cycle_momentum=any("betas" in group or group.get("momentum") for group in groups),
    )


def constant(optimiser: Optimizer, *, steps: int) -> LRScheduler:
    """Keep the learning rate."""
    del steps
    return LambdaLR(optimiser, lambda _: 1.0)

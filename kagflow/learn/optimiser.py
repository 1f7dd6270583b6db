"""Optimisers, schedules and the moving average of weights."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR, LRScheduler
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from kagflow import resolve

OPTIMISERS = {"adamw": "torch.optim:AdamW", "sgd": "torch.optim:SGD"}
SCHEDULES = {
    "cosine": "kagflow.learn.optimiser:cosine",
    "constant": "kagflow.learn.optimiser:constant",
}


def build_optimiser(model: nn.Module, recipe: Mapping[str, Any]) -> Optimizer:
    """Build the recipe's optimiser; any class of `torch.optim`'s form will do.

    Encoder parameters get `lr * encoder_lr`; norms and biases get no weight decay (1-d tensors).
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
    spec = {"target": recipe["target"], "kwargs": recipe.get("kwargs")}
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


def constant(optimiser: Optimizer, *, steps: int) -> LRScheduler:
    """Keep the learning rate."""
    del steps
    return LambdaLR(optimiser, lambda _: 1.0)


def build_ema(model: nn.Module, decay: float) -> AveragedModel | None:
    """Average weights and buffers with decay min(decay, (1 + t) / (10 + t)); None for decay 0.

    The warm-up is timm's ModelEmaV3: a short run is not held at its random start.
    """
    if not decay:
        return None

    def update(averaged: Any, current: Any, count: Tensor | int) -> None:
        seen = float(count)
        now = min(decay, (1 + seen) / (10 + seen))
        get_ema_multi_avg_fn(now)(averaged, current, count)  # type: ignore[no-untyped-call]

    return AveragedModel(model, multi_avg_fn=torch.no_grad()(update), use_buffers=True)

"""The one way to build and to read any model, built-in or not."""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Iterable, Mapping
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from kagflow.errors import UsageError
from kagflow.resolve import build, resolve

MODELS = {
    "smp": "kagflow.infer.models_smp:smp_model",
    "timm": "kagflow.infer.models_timm:timm_model",
}

# The deepest stride of the encoders in use; larger multiples cost pixels and gain nothing.
STRIDE = 32


def build_model(
    spec: Mapping[str, Any], *, classes: int, encoder_weights: str | None = None
) -> nn.Module:
    """Build the model that `spec` {target, kwargs} names, for `classes` logits.

    `encoder_weights` ("imagenet" or None) belongs to training: the kernel has no network, so it
    is None there, and is passed to every target that can take it.
    Raises UsageError for unknown names or arguments.
    """
    target = str(spec["target"])
    extra: dict[str, Any] = {"classes": classes}
    if _takes(resolve(target, MODELS), "encoder_weights"):
        extra["encoder_weights"] = encoder_weights
    elif encoder_weights is not None:
        raise UsageError(
            f"model '{target}' takes no encoder_weights, but '{encoder_weights}' was asked for",
            hint="write weights: none in the recipe, or add encoder_weights to the model",
        )
    return cast(nn.Module, build(spec, MODELS, **extra))


def named_outputs(raw: Any, predicts: str) -> dict[str, Tensor]:
    """Name what a model returned: a dict stays, a tensor is what the recipe predicts.

    `mask` logits are (N, K, H, W), `label` logits (N, K).
    """
    named = dict(raw) if isinstance(raw, Mapping) else {predicts: raw}
    if not isinstance(named.get(predicts), Tensor):
        got = sorted(named) if isinstance(raw, Mapping) else type(raw).__name__
        raise UsageError(
            f"the model returned {got}, but the recipe predicts '{predicts}'",
            hint=f"return a tensor of logits, or a dict with the key '{predicts}'",
        )
    return named


def outputs(raw: Any, predicts: str) -> Tensor:
    """Return the logits of `predicts` from whatever the model returned."""
    return named_outputs(raw, predicts)[predicts]


def pad_to(batch: Tensor, multiple: int, *, least: int = 0) -> Tensor:
    """Pad (N, C, H, W) at the bottom and right to multiples, by reflection where it fits.

    `least` is the smallest height and width, itself a multiple.
    """
    height, width = batch.shape[-2:]
    down, right = (max(-size % multiple, least - size) for size in (height, width))
    if not (down or right):
        return batch
    mode = "reflect" if down < height and right < width else "replicate"
    return F.pad(batch, (0, right, 0, down), mode=mode)


def nearest(word: str, names: Iterable[str]) -> str:
    """Return advice for an unknown name: the nearest ones, or the first of all."""
    options = list(names)
    lower = {name.lower(): name for name in options}
    near = [lower[n] for n in difflib.get_close_matches(word.lower(), list(lower), n=3, cutoff=0.5)]
    if near:
        return f"did you mean {' or '.join(near)}?"
    return f"there are: {', '.join(sorted(options)[:20])}"


def _takes(target: Any, argument: str) -> bool:
    """Tell whether a callable takes a keyword argument."""
    try:
        parameters = inspect.signature(target).parameters
    except ValueError:
        return False
    return argument in parameters or any(p.kind is p.VAR_KEYWORD for p in parameters.values())


def channels_last(model: nn.Module, device: str) -> nn.Module:
    """Move a model for prediction: eval mode, device, channels last."""
    moved = model.eval().to(torch.device(device))
    return moved.to(memory_format=torch.channels_last)

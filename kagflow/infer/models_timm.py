"""timm's models: image-level classifiers, and what its networks need to take any size."""

from __future__ import annotations

import math
from collections.abc import Mapping
from functools import partial
from typing import Any, cast

from torch import Tensor, nn

from kagflow.errors import UsageError
from kagflow.infer.affinity import attach
from kagflow.infer.models import STRIDE, nearest, pad_to

# By timm's module: what frees a network from the one image size that it was trained at.
FREE: dict[str, Mapping[str, Any]] = {
    "deit": {"dynamic_img_size": True},
    "eva": {"dynamic_img_size": True},
    "swin_transformer": {"strict_img_size": False},
    "swin_transformer_v2": {"strict_img_size": False},
    "vision_transformer": {"dynamic_img_size": True},
}


def timm_model(
    *,
    classes: int,
    name: str = "resnet18",
    in_chans: int = 1,
    encoder_weights: str | None = None,
    affinity: bool | Mapping[str, Any] = False,
    **kwargs: Any,
) -> nn.Module:
    """Build an image-level classifier of timm: (N, in_chans, H, W) -> logits (N, classes).

    `kwargs` go to timm.create_model (`drop_rate`, `global_pool`, ...). Networks with a table of
    positions that cannot be stretched (mixers, beit, coatnet) need `img_size: [H, W]`, and no crop.
    `affinity: true` makes its logits affinities to class centres (kagflow.infer.affinity).
    """
    import timm

    check_name(name)
    try:
        model = timm.create_model(
            name,
            pretrained=encoder_weights is not None,
            num_classes=classes,
            in_chans=in_chans,
            **(free_size(name) | kwargs),
        )
    except TypeError as error:
        raise UsageError(f"timm {name}: {error}", hint="see timm.create_model's kwargs") from error
    model.register_forward_pre_hook(partial(_pad_input, multiple(model)))
    if affinity:
        attach(model, {"label": model.get_classifier()}, classes=classes, options=affinity)
    return cast(nn.Module, model)


def check_name(name: str, prefix: str = "") -> None:
    """Raise UsageError with the nearest names for a model that timm lacks."""
    import timm

    if not timm.is_model(name):
        names = [f"{prefix}{one}" for one in timm.list_models()]
        raise UsageError(f"timm has no model '{prefix}{name}'", hint=nearest(prefix + name, names))


def free_size(name: str) -> dict[str, Any]:
    """Return the arguments with which timm's model `name` takes images of any size."""
    import timm

    return dict(FREE.get(timm.models.model_entrypoint(name).__module__.rpartition(".")[2], {}))


def multiple(model: nn.Module) -> int:
    """Return what an image's sides must be multiples of: strides, patches, attention windows."""
    wanted, window = STRIDE, 1
    for module in model.modules():
        wanted = math.lcm(wanted, *_sides(getattr(module, "patch_size", None)))
        window = math.lcm(window, *_sides(getattr(module, "partition_size", None)))
    return wanted * window


def _sides(found: Any) -> tuple[int, ...]:
    if isinstance(found, int):
        return (found,)
    whole = isinstance(found, tuple) and all(isinstance(side, int) for side in found)
    return cast(tuple[int, ...], found) if whole else ()


def _pad_input(wanted: int, model: nn.Module, given: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    del model
    return (pad_to(given[0], wanted), *given[1:])

"""Built-in models, and the one way to build and to read any model."""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Iterable, Mapping
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from kagflow.errors import UsageError
from kagflow.infer.affinity import attach
from kagflow.resolve import build, resolve

MODELS = {"smp": "kagflow.infer.models:smp_model", "timm": "kagflow.infer.models:timm_model"}

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


def pad_to(batch: Tensor, multiple: int) -> Tensor:
    """Pad (N, C, H, W) at the bottom and right to multiples, by reflection where it fits."""
    height, width = batch.shape[-2:]
    down, right = -height % multiple, -width % multiple
    if not (down or right):
        return batch
    mode = "reflect" if down < height and right < width else "replicate"
    return F.pad(batch, (0, right, 0, down), mode=mode)


class AnySize:
    """Mix into a model class with an `encoder`: pad to its stride, crop back, name the outputs.

    Training crops and odd images then need no care; a (mask, label) pair becomes a dict.
    """

    encoder: Any

    def forward(self, batch: Tensor) -> Tensor | dict[str, Tensor]:
        """Return mask logits (N, K, H, W) of the input's own size, with `label` if there is one."""
        height, width = batch.shape[-2:]
        stride = max(int(self.encoder.output_stride), STRIDE)
        raw = super().forward(pad_to(batch, stride))  # type: ignore[misc]
        if isinstance(raw, tuple):
            return {"mask": raw[0][..., :height, :width], "label": raw[1]}
        return cast(Tensor, raw)[..., :height, :width]


def smp_model(
    *,
    classes: int,
    arch: str = "Unet",
    encoder: str = "resnet34",
    encoder_weights: str | None = None,
    label_head: bool | Mapping[str, Any] = False,
    affinity: bool | Mapping[str, Any] = False,
    **kwargs: Any,
) -> nn.Module:
    """Build any architecture of segmentation_models_pytorch, for inputs of any size.

    `label_head: true` adds image-level logits from the deepest features (smp's aux_params, which
    a mapping extends); `affinity: true` makes its logits affinities (kagflow.infer.affinity);
    `kwargs` go to the architecture, in_channels being 1 unless said.
    """
    import segmentation_models_pytorch as smp

    known = {found.__name__: found for found in smp.MODEL_ARCHITECTURES_MAPPING.values()}
    by_lower = {name.lower(): name for name in known}
    name = by_lower.get(arch.lower())
    if name is None:
        raise UsageError(f"smp has no architecture '{arch}'", hint=_nearest(arch, known))
    _check_encoder(encoder, smp.encoders.encoders)
    takes = [*inspect.signature(known[name].__init__).parameters][1:]
    strange = [word for word in kwargs if word not in takes]
    # smp drops what its own encoders do not know; timm's take further arguments.
    if strange and not encoder.startswith("tu-"):
        hint = _nearest(strange[0], takes)
        raise UsageError(f"smp {name} takes no '{strange[0]}'", hint=hint)
    if label_head:
        given = label_head if isinstance(label_head, Mapping) else {}
        kwargs["aux_params"] = {"classes": classes, **given}
    if encoder.startswith("tu-") and encoder_weights is not None:
        # timm encoders carry the name of their weights; smp wants a yes or no.
        kwargs["encoder_weights"] = True
    else:
        kwargs["encoder_weights"] = encoder_weights
    kwargs.setdefault("in_channels", 1)
    whole = type(name, (AnySize, known[name]), {})
    try:
        model = whole(encoder_name=encoder, classes=classes, **kwargs)
    except (TypeError, ValueError, KeyError) as error:
        raise UsageError(
            f"smp {name} with encoder {encoder}: {error}",
            hint=f"{name} takes: {', '.join(takes)}",
        ) from error
    if affinity:
        heads = {"mask": model.segmentation_head} | (
            {"label": model.classification_head} if label_head else {}
        )
        attach(model, heads, classes=classes, options=affinity)
    return cast(nn.Module, model)


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

    `affinity: true` makes its logits affinities to class centres (kagflow.infer.affinity).
    """
    import timm

    if not timm.is_model(name):
        raise UsageError(f"timm has no model '{name}'", hint=_nearest(name, timm.list_models()))
    try:
        model = timm.create_model(
            name,
            pretrained=encoder_weights is not None,
            num_classes=classes,
            in_chans=in_chans,
            **kwargs,
        )
    except TypeError as error:
        raise UsageError(f"timm {name}: {error}", hint="see timm.create_model's kwargs") from error
    if affinity:
        attach(model, {"label": model.get_classifier()}, classes=classes, options=affinity)
    return cast(nn.Module, model)


def _check_encoder(encoder: str, known: Mapping[str, Any]) -> None:
    """Raise UsageError with the nearest names for an encoder that smp or timm lacks."""
    import timm

    if encoder.startswith("tu-"):
        if not timm.is_model(encoder[3:]):
            names = [f"tu-{name}" for name in timm.list_models()]
            raise UsageError(f"timm has no encoder '{encoder}'", hint=_nearest(encoder, names))
    elif encoder not in known and not encoder.startswith("timm-"):
        raise UsageError(
            f"smp has no encoder '{encoder}'",
            hint=f"{_nearest(encoder, known)}; any timm model is tu-<name>",
        )


def _nearest(word: str, names: Iterable[str]) -> str:
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

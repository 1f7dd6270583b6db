"""Any architecture of segmentation_models_pytorch, for images of any size."""

from __future__ import annotations

import contextlib
import inspect
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from kagflow.errors import UsageError
from kagflow.infer.affinity import attach
from kagflow.infer.models import STRIDE, nearest, pad_to
from kagflow.infer.models_timm import check_name, free_size, multiple

# The pooling pyramid of PAN's bottleneck needs 8 cells a side at stride 16.
LEAST = {"PAN": 128}
SUPERVISED = ("FPN", "Linknet", "MAnet", "Unet", "UnetPlusPlus")
# The Mix Transformer's code and weights are for research and evaluation only (smp #997, #747).
NONCOMMERCIAL = "mit_"


class AnySize:
    """Mix into a model class with an `encoder`: pad to its stride, crop back, name the outputs.

    Training crops and odd images then need no care; a (mask, label) pair becomes a dict. In
    training mode the `supervised` decoder modules give `aux` logits through `aux_heads`.
    """

    encoder: Any
    training: bool
    get_submodule: Any
    stride: int = STRIDE
    least: int = 0
    supervised: tuple[str, ...] = ()
    aux_heads: nn.ModuleList

    def forward(self, batch: Tensor) -> Tensor | dict[str, Tensor]:
        """Return mask logits (N, K, H, W) of the input's own size, or a dict with the others."""
        height, width = batch.shape[-2:]
        padded = pad_to(batch, self.stride, least=self.least)
        inside = [self.get_submodule(name) for name in self.supervised if self.training]
        with _watched(inside) as seen:
            raw = super().forward(padded)  # type: ignore[misc]
        mask, *label = raw if isinstance(raw, tuple) else (raw,)
        named = {"mask": mask} | dict(zip(("label",), label, strict=False))
        for index, features in enumerate(seen):
            logits = self.aux_heads[index](features)
            size = padded.shape[-2:]
            logits = F.interpolate(logits, size, mode="bilinear", align_corners=False)
            named[f"aux{index or ''}"] = logits
        cropped = {k: v if k == "label" else v[..., :height, :width] for k, v in named.items()}
        return cropped if len(cropped) > 1 else cropped["mask"]


@contextlib.contextmanager
def _watched(modules: Sequence[nn.Module]) -> Iterator[list[Tensor]]:
    """Yield a list that fills with what the modules return, in the order in which they run."""
    seen: list[Tensor] = []
    # Hooks that outlive the call would be copied with the model, still filling the first's list.
    handles = [
        module.register_forward_hook(lambda _module, _given, out: seen.append(out))
        for module in modules
    ]
    try:
        yield seen
    finally:
        for handle in handles:
            handle.remove()


def smp_model(  # noqa: PLR0913 - a recipe's words
    *,
    classes: int,
    arch: str = "Unet",
    encoder: str = "resnet34",
    encoder_weights: str | None = None,
    label_head: bool | Mapping[str, Any] = False,
    affinity: bool | Mapping[str, Any] = False,
    deep_supervision: bool = False,
    noncommercial: bool = False,
    **kwargs: Any,
) -> nn.Module:
    """Build any architecture of segmentation_models_pytorch, for inputs of any size.

    `label_head: true` adds image-level logits from the deepest features (smp's aux_params, which
    a mapping extends); `affinity: true` makes its logits affinities (kagflow.infer.affinity);
    `deep_supervision: true` adds `aux` logits from inside the decoder while training;
    `noncommercial: true` allows the mit_* encoders, whose licence is NVIDIA's non-commercial one.
    `kwargs` go to the architecture, in_channels being 1 unless said.
    """
    name, known = architecture(arch)
    check_encoder(encoder, noncommercial=noncommercial)
    takes = [*inspect.signature(known.__init__).parameters][1:]
    strange = [word for word in kwargs if word not in takes]
    # smp drops what its own encoders do not know; timm's take further arguments.
    if strange and not encoder.startswith("tu-"):
        hint = nearest(strange[0], takes)
        raise UsageError(f"smp {name} takes no '{strange[0]}'", hint=hint)
    if label_head:
        given = label_head if isinstance(label_head, Mapping) else {}
        kwargs["aux_params"] = {"classes": classes, **given}
    if encoder.startswith("tu-"):
        # timm encoders carry the name of their weights; smp wants a yes or no.
        kwargs["encoder_weights"] = True if encoder_weights else None
        kwargs = free_size(encoder[3:]) | kwargs
    else:
        kwargs["encoder_weights"] = encoder_weights
    kwargs.setdefault("in_channels", 1)
    try:
        whole = type(name, (AnySize, known), {"least": LEAST.get(name, 0)})
        model: Any = whole(encoder_name=encoder, classes=classes, **kwargs)
    except (TypeError, ValueError, KeyError, AssertionError) as error:
        raise UsageError(
            f"smp {name} with encoder {encoder}: {error}",
            hint=f"{name} takes: {', '.join(takes)}",
        ) from error
    model.stride = max(int(model.encoder.output_stride), multiple(model.encoder))
    if deep_supervision:
        _supervise(model, name, classes, int(kwargs["in_channels"]))
    if affinity:
        heads = {"mask": model.segmentation_head} | (
            {"label": model.classification_head} if label_head else {}
        )
        attach(model, heads, classes=classes, options=affinity)
    return cast(nn.Module, model)


def architecture(arch: str) -> tuple[str, type[nn.Module]]:
    """Return smp's architecture of a name in any case; raises UsageError with the nearest names."""
    import segmentation_models_pytorch as smp

    known = {found.__name__: found for found in smp.MODEL_ARCHITECTURES_MAPPING.values()}
    by_lower = {name.lower(): name for name in known}
    if arch.lower() not in by_lower:
        raise UsageError(f"smp has no architecture '{arch}'", hint=nearest(arch, known))
    name = by_lower[arch.lower()]
    return name, known[name]


def check_encoder(encoder: str, *, noncommercial: bool) -> None:
    """Raise UsageError for an encoder that smp or timm lacks, or whose licence forbids use."""
    import segmentation_models_pytorch as smp

    known = smp.encoders.encoders
    if encoder.startswith("tu-"):
        check_name(encoder[3:], "tu-")
    elif encoder not in known and not encoder.startswith("timm-"):
        raise UsageError(
            f"smp has no encoder '{encoder}'",
            hint=f"{nearest(encoder, known)}; any timm model is tu-<name>",
        )
    elif encoder.startswith(NONCOMMERCIAL) and not noncommercial:
        raise UsageError(
            f"encoder {encoder} is under NVIDIA's licence for non-commercial use only",
            hint="a competition with prizes may not allow it: another encoder, or, where it does, "
            "model.kwargs.noncommercial=true",
        )


def _supervise(model: Any, name: str, classes: int, channels: int) -> None:
    """Add a head to each decoder module that is supervised, its width found by a dry run."""
    if name not in SUPERVISED:
        raise UsageError(
            f"smp {name} has no deep supervision here", hint=f"{', '.join(SUPERVISED)} have"
        )
    model.supervised = tuple(f"decoder.{inner}" for inner in _inner(model.decoder, name))
    side = max(64, model.stride, model.least)
    inside = [model.get_submodule(name) for name in model.supervised]
    # In eval mode a dry run moves no statistics and draws no numbers.
    with torch.no_grad(), _watched(inside) as seen:
        model.eval()(torch.zeros(1, channels, side, side))
    model.train()
    model.aux_heads = nn.ModuleList(nn.Conv2d(found.shape[1], classes, 1) for found in seen)


def _inner(decoder: Any, name: str) -> list[str]:
    """Name the decoder's modules at 1/4 and 1/2 of the size; FPN's are its pyramid levels."""
    if name == "FPN":
        return [f"seg_blocks.{index}" for index in range(len(decoder.seg_blocks))]
    if name == "UnetPlusPlus":
        # The top row of the grid, whose last node feeds the segmentation head.
        return [f"blocks.x_0_{index}" for index in range(decoder.depth + 1)][-3:-1]
    return [f"blocks.{index}" for index in range(len(decoder.blocks))][-3:-1]

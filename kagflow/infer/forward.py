"""From a batch to probabilities: test-time augmentation, folds, mixed precision."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from kagflow.errors import UsageError
from kagflow.infer.models import STRIDE, outputs, pad_to

# Axes of (N, C, H, W) that each view flips; a flip is its own inverse.
_FLIPS: dict[str, tuple[int, ...]] = {
    "none": (),
    "hflip": (3,),
    "vflip": (2,),
    "hvflip": (2, 3),
}
_DTYPES = {"fp16": torch.float16, "bf16": torch.bfloat16}


@torch.inference_mode()
def forward(
    modules: Sequence[nn.Module],
    batch: Tensor,
    predicts: str,
    tta: Sequence[str],
    *,
    precision: str = "auto",
) -> Tensor:
    """Return mean probabilities over modules and views, float32 on the batch's device.

    `batch` (N, C, H, W) of any size; masks come back (N, K, H, W) with flips undone, labels
    (N, K). `precision` auto means fp16 on CUDA and fp32 elsewhere.
    """
    total: Tensor | None = None
    with _autocast(batch.device, precision):
        for view in tta:
            axes = _FLIPS[view]
            flipped = batch.flip(axes) if axes else batch
            for module in modules:
                probs = _probabilities(module, flipped, predicts)
                if axes and predicts == "mask":
                    probs = probs.flip(axes)
                total = probs if total is None else total.add_(probs)
    if total is None:
        raise UsageError("nothing to run: no weights, or no views")
    return total.div_(len(tta) * len(modules))


def _probabilities(module: nn.Module, batch: Tensor, predicts: str) -> Tensor:
    """Run one module on a padded batch; masks are cropped to the batch's own size."""
    height, width = batch.shape[-2:]
    layout = getattr(module, "memory_format", torch.channels_last)
    padded = pad_to(batch, STRIDE).contiguous(memory_format=layout)
    logits = outputs(module(padded), predicts).float()
    if predicts == "mask":
        if logits.shape[-2:] != padded.shape[-2:]:
            logits = F.interpolate(logits, padded.shape[-2:], mode="bilinear", align_corners=False)
        logits = logits[..., :height, :width]
    return logits.sigmoid()


def _autocast(device: torch.device, precision: str) -> contextlib.AbstractContextManager[object]:
    if precision == "auto":
        precision = "fp16" if device.type == "cuda" else "fp32"
    if precision == "fp32":
        return contextlib.nullcontext()
    return torch.autocast(device.type, dtype=_DTYPES[precision])

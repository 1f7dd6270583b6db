"""Batch norm over the images of all processes: torch's on GPUs, which has none for CPUs."""

from __future__ import annotations

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.nn.functional import all_reduce
from torch.nn.modules.batchnorm import _BatchNorm


def share_statistics(model: nn.Module, device: torch.device) -> nn.Module:
    """Return `model` with every batch norm synchronised; weights and their names stay."""
    if device.type == "cuda":
        from timm.layers import convert_sync_batchnorm

        # timm's knows its own layers, which also hold an activation, and leaves the rest to torch.
        converted: nn.Module = convert_sync_batchnorm(model)
        return converted
    for module in model.modules():
        if isinstance(module, _BatchNorm):
            own = type(module)
            module.__class__ = type(f"Shared{own.__name__}", (own,), {"forward": _forward})
    return model


def _forward(self: _BatchNorm, images: Tensor) -> Tensor:
    out = _normalise(self, images)
    # timm's BatchNormAct2d holds what follows.
    for name in ("drop", "act"):
        part = getattr(self, name, None)
        out = out if part is None else part(out)
    return out


def _normalise(norm: _BatchNorm, images: Tensor) -> Tensor:
    """Do what torch's batch norm does, with sums over all processes."""
    if not norm.training:
        mean, variance = norm.running_mean, norm.running_var
    else:
        axes = [0, *range(2, images.dim())]
        count = images.new_tensor([float(images.numel() // images.shape[1])])
        sums = torch.cat([count, images.sum(axes)])
        sums = all_reduce(sums, op=dist.ReduceOp.SUM)  # type: ignore[no-untyped-call]
        total, mean = sums[0].detach(), sums[1:] / sums[0].detach()
        centred = images - _shaped(mean, images)
        square = all_reduce((centred**2).sum(axes), op=dist.ReduceOp.SUM)  # type: ignore[no-untyped-call]
        variance = square / total
        _track(norm, mean.detach(), variance.detach() * total / (total - 1))
    assert mean is not None
    assert variance is not None
    scaled = (images - _shaped(mean, images)) * _shaped((variance + norm.eps).rsqrt(), images)
    if norm.affine:
        scaled = scaled * _shaped(norm.weight, images) + _shaped(norm.bias, images)
    return scaled


def _track(norm: _BatchNorm, mean: Tensor, variance: Tensor) -> None:
    if norm.running_mean is None or norm.running_var is None:
        return
    assert norm.num_batches_tracked is not None
    norm.num_batches_tracked.add_(1)
    share = norm.momentum
    if share is None:
        share = 1 / float(norm.num_batches_tracked)
    norm.running_mean.lerp_(mean, share)
    norm.running_var.lerp_(variance, share)


def _shaped(values: Tensor, images: Tensor) -> Tensor:
    return values.view(1, -1, *[1] * (images.dim() - 2))

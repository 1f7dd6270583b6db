"""The moving average of weights."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn


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

"""Losses found by recipes as the user's own would be."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn


class Weighed(nn.Module):
    """Learn how much each class weighs (Kendall et al. 2018), and count its calls."""

    def __init__(self) -> None:
        super().__init__()
        self.spread = nn.Parameter(torch.zeros(2))
        self.register_buffer("calls", torch.zeros(()))

    def forward(self, outputs, target):
        self.calls += 1
        loss = F.binary_cross_entropy_with_logits(
            outputs["mask"], target["mask"], reduction="none"
        ).mean(dim=(0, 2, 3))
        return (loss * torch.exp(-self.spread) + self.spread).sum()


class Faulty(nn.Module):
    """Fails as a plug-in may."""

    def forward(self, outputs, target):
        raise RuntimeError("a plug-in's own")

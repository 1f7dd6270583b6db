"""A plug-in model, far smaller than any built-in one."""

from __future__ import annotations

import itertools

from torch import nn


def tiny(*, classes: int, width: int = 16, channels: int = 1) -> nn.Module:
    """Return a net from (N, channels, H, W) to logits (N, classes) that asks: is it anywhere?"""
    widths = (channels, width, 2 * width, 4 * width)
    layers: list[nn.Module] = []
    for before, after in itertools.pairwise(widths):
        layers += [nn.Conv2d(before, after, 3, padding=1, bias=False), nn.BatchNorm2d(after)]
        layers += [nn.ReLU(), nn.MaxPool2d(2)]
    layers += [nn.AdaptiveMaxPool2d(1), nn.Flatten(), nn.Linear(widths[-1], classes)]
    return nn.Sequential(*layers)

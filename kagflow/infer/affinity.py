"""A head whose logits are Gaussian affinities to learned class centres. Travels to Kaggle.

After Hayat, Khan, Zamir, Shen and Shao, "Gaussian Affinity for Max-margin Class Imbalanced
Learning", ICCV 2019 (arXiv 1901.07711). The paper replaces a network's last layer by centres w_j,
one or several a class, and scores feature f by

    d(f, w_j) = max over the centres t of class j of exp(-|f - w_jt|^2 / sigma), in (0, 1].

It chooses among classes that exclude each other. Ours are yes-or-no questions: an image can show
several classes, a pixel none. So the affinity itself is the probability, p = d, and the logit is
log d/(1 - d). p > 0.5 says that the feature lies within the ball |f - w|^2 < sigma ln 2 about one
of the class's centres. Background gets no centre, for what is not a defect is no cluster: it is
whatever lies in no ball. Losses read d back as sigmoid(logit), so any of them can train this head.

The paper leaves features free and tunes sigma to their scale (5 to 20 there). Here a feature is
brought to length 1 first, and centres start at length 1 and at right angles, where d = exp(-2 /
sigma): sigma 1 starts every class at p = 0.14, and no layer's scale makes the affinities vanish.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kagflow.errors import UsageError

# The least |f - w|^2 / sigma: keeps the logit of a feature that lies on a centre below 9.3.
_NEAREST = 1e-4
# Shorter features are not brought to length 1: the slope 1 / length must stay within fp16.
_SHORTEST = 1e-3


class Affinity(nn.Module):
    """Turn features `(N, D)` or `(N, D, H, W)` into logits `(N, K)` or `(N, K, H, W)`.

    `points` holds the centres `(K * centres, D)`, those of a class side by side. `sigma` is in
    squared distances between unit vectors, which are 2 at right angles.
    """

    def __init__(
        self, features: int, classes: int, *, centres: int = 1, sigma: float = 1.0
    ) -> None:
        super().__init__()
        if min(features, centres) < 1 or sigma <= 0:
            raise UsageError(
                f"affinity: features={features}, centres={centres}, sigma={sigma}",
                hint="features and centres are 1 or more, sigma is above 0",
            )
        self.classes, self.centres, self.sigma = classes, centres, sigma
        start = nn.init.orthogonal_(torch.empty(classes * centres, features))
        self.points = nn.Parameter(F.normalize(start, dim=1))

    def forward(self, features: Tensor) -> Tensor:
        """Return logits in the centres' precision, float32 under autocast too."""
        with torch.autocast(features.device.type, enabled=False):
            unit = F.normalize(features.to(self.points.dtype), dim=1, eps=_SHORTEST)
            ones = (1,) * (features.ndim - 2)
            products = (
                F.conv2d(unit, self.points[:, :, None, None])
                if ones
                else F.linear(unit, self.points)
            )
            lengths = self.points.square().sum(1).view(-1, *ones)
            distances = (1 + lengths - 2 * products) / self.sigma
            by_class = (len(unit), self.classes, self.centres, *features.shape[2:])
            nearest = distances.reshape(by_class).amin(2).clamp_min(_NEAREST)
            # log d/(1 - d) for d = exp(-nearest), exact at both ends.
            logits: Tensor = -nearest - torch.log(-torch.expm1(-nearest))
        return logits


def attach(model: nn.Module, heads: Mapping[str, nn.Module], *, classes: int, options: Any) -> None:
    """Put an Affinity behind the last layer of each head, which then makes features.

    `heads` maps mask or label to a part of the model; `options` is True or {features: 32,
    centres: 1, sigma: 1.0}. The model then returns a dict that holds, beside its logits, the
    centres as `mask_centres` or `label_centres`, for the loss to spread.
    Raises UsageError for unknown options or a head without a last layer.
    """
    given = dict(options) if isinstance(options, Mapping) else {}
    features = int(given.pop("features", 32))
    if strange := sorted(set(given) - {"centres", "sigma"}):
        raise UsageError(
            f"affinity takes no '{strange[0]}'", hint="it takes: features, centres, sigma"
        )
    names = {id(module): name for name, module in model.named_modules()}
    places = {}
    for head, part in heads.items():
        layers = [m for m in part.modules() if isinstance(m, nn.Linear | nn.Conv2d)]
        if not layers:
            raise UsageError(f"the {head} head has no last layer for an affinity head to replace")
        name = names[id(layers[-1])]
        behind = Affinity(features, classes, **given)
        model.set_submodule(name, nn.Sequential(_widened(layers[-1], features), behind))
        places[head] = f"{name}.1"
    # A hook lets smp's and timm's classes be; it knows names alone, so copies of the model keep it.
    model.register_forward_hook(partial(_with_centres, places))


def _widened(layer: nn.Linear | nn.Conv2d, features: int) -> nn.Module:
    if isinstance(layer, nn.Linear):
        return nn.Linear(layer.in_features, features)
    size: Any = layer.kernel_size
    padding: Any = layer.padding
    return nn.Conv2d(layer.in_channels, features, size, padding=padding)


def _with_centres(
    places: Mapping[str, str], model: nn.Module, _: Any, output: Any
) -> dict[str, Tensor]:
    named = dict(output) if isinstance(output, Mapping) else {next(iter(places)): output}
    for head, place in places.items():
        behind: Any = model.get_submodule(place)
        named[f"{head}_centres"] = behind.points
    return named

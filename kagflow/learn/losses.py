"""Losses on a dict of logits and a dict of targets.

A target builds a callable `(outputs, target) -> scalar`; outputs hold float32 logits `mask`
`(N, K, H, W)`, `label` `(N, K)` or `aux` `(N, K, h, w)`; targets hold `mask` and `label` in 0..1.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

LOSSES = {
    "bce": "kagflow.learn.losses:bce",
    "bce_dice": "kagflow.learn.losses:bce_dice",
    "focal": "kagflow.learn.losses:focal",
    "lovasz": "kagflow.learn.losses:lovasz",
}

Tensors = dict[str, Tensor]
Loss = Callable[[Tensors, Tensors], Tensor]
Term = Callable[[Tensor, Tensor], Tensor]


def bce(*, positive: float = 1.0, smoothing: float = 0.0, aux: float = 0.4) -> Loss:
    """Weigh cross-entropy of positives by `positive`; `smoothing` pulls targets towards 0.5."""
    term = _cross_entropy(positive, smoothing)
    return _over_heads(term, term, aux)


def bce_dice(
    *,
    bce: float = 1.0,
    dice: float = 1.0,
    positive: float = 1.0,
    smoothing: float = 0.0,
    aux: float = 0.4,
) -> Loss:
    """Add cross-entropy and Dice over the batch; labels get cross-entropy alone.

    A class without a true pixel in the batch has no Dice term (smp's convention).
    """
    from segmentation_models_pytorch.losses import DiceLoss

    cross, overlap = _cross_entropy(positive, smoothing), DiceLoss("multilabel")

    def term(logits: Tensor, target: Tensor) -> Tensor:
        return torch.add(bce * cross(logits, target), overlap(logits, target), alpha=dice)

    return _over_heads(term, cross, aux)


def focal(*, gamma: float = 2.0, alpha: float | None = None, aux: float = 0.4) -> Loss:
    """Weigh easy pixels and labels down (Lin et al. 2017)."""
    from segmentation_models_pytorch.losses import FocalLoss

    term = FocalLoss("multilabel", alpha=alpha, gamma=gamma)
    return _over_heads(term, term, aux)


def lovasz(*, bce: float = 0.0, per_image: bool = False, aux: float = 0.4) -> Loss:
    """Take the symmetric Lovasz hinge, mean of L(z, y) and L(-z, 1 - y) (Berman et al. 2018).

    `bce` adds that much cross-entropy; labels get cross-entropy alone.
    """
    from segmentation_models_pytorch.losses import LovaszLoss

    hinge, cross = LovaszLoss("multilabel", per_image=per_image), _cross_entropy(1.0, 0.0)

    def term(logits: Tensor, target: Tensor) -> Tensor:
        both: Tensor = (hinge(logits, target) + hinge(-logits, 1 - target)) / 2
        return both + bce * cross(logits, target) if bce else both

    return _over_heads(term, cross, aux)


def _cross_entropy(positive: float, smoothing: float) -> Term:
    def term(logits: Tensor, target: Tensor) -> Tensor:
        weight = torch.full((), positive, device=logits.device)
        soft = target * (1 - smoothing) + 0.5 * smoothing
        return F.binary_cross_entropy_with_logits(logits, soft, pos_weight=weight)

    return term


def _over_heads(mask_term: Term, label_term: Term, aux: float) -> Loss:
    def loss(outputs: Tensors, target: Tensors) -> Tensor:
        terms = []
        if "mask" in outputs:
            terms.append(mask_term(outputs["mask"], target["mask"]))
        if "label" in outputs:
            terms.append(label_term(outputs["label"], target["label"]))
        if "aux" in outputs:
            size = target["mask"].shape[-2:]
            logits = F.interpolate(outputs["aux"], size, mode="bilinear", align_corners=False)
            terms.append(aux * mask_term(logits, target["mask"]))
        return torch.stack(terms).sum()

    return loss

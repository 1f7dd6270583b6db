"""Losses on a dict of logits and a dict of targets.

A target builds a callable `(outputs, target) -> scalar`; outputs hold logits `mask`
`(N, K, H, W)`, `label` `(N, K)` or `aux`, `aux1`, ... `(N, K, h, w)`; targets hold `mask` and
`label` in 0..1.
Half-precision logits are widened to float32 first. What smp ships is taken from smp, in calls that
mean the same in its versions 0.5 and 0.6. docs/explanation/losses-and-samplers.md says which to
use when.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from kagflow.errors import UsageError

LOSSES = {
    "affinity": "kagflow.learn.losses_affinity:affinity",
    "bce": "kagflow.learn.losses:bce",
    "bce_dice": "kagflow.learn.losses:bce_dice",
    "dice": "kagflow.learn.losses:dice",
    "focal": "kagflow.learn.losses:focal",
    "lovasz": "kagflow.learn.losses:lovasz",
    "soft_bce": "kagflow.learn.losses:soft_bce",
    "sum": "kagflow.learn.losses_sum:WeightedSum",
    "tversky": "kagflow.learn.losses:tversky",
}

Tensors = dict[str, Tensor]
Loss = Callable[[Tensors, Tensors], Tensor]
Term = Callable[[Tensor, Tensor], Tensor]

_HALVES = (torch.float16, torch.bfloat16)


def bce(*, positive: float = 1.0, smoothing: float = 0.0, aux: float = 0.4) -> Loss:
    """Weigh cross-entropy of positives by `positive`; `smoothing` pulls targets towards 0.5.

    A target t becomes t (1 - smoothing) + smoothing / 2; targets between 0 and 1 are welcome.
    """
    term = cross_entropy(positive, smoothing)
    return over_heads(term, term, aux)


def soft_bce(*, smoothing: float = 0.1, aux: float = 0.4) -> Loss:
    """Take smp's cross-entropy with label smoothing: `bce` for targets that are in doubt.

    smp's smooth_factor s makes 1 - s of a 1; ours is twice that, so that 1 means no information.
    """
    from segmentation_models_pytorch.losses import SoftBCEWithLogitsLoss

    _within("smoothing", smoothing, 0, 1)
    # Its default marks targets of -100 as ignored, at the price of two passes over the pixels.
    term = SoftBCEWithLogitsLoss(ignore_index=None, smooth_factor=smoothing / 2)
    return over_heads(term, term, aux)


def dice(*, log: bool = False, aux: float = 0.4) -> Loss:
    """Take 1 - soft Dice of each class over the batch, or -log of it; labels get cross-entropy.

    A class without a true pixel in the batch has no Dice term (smp's convention).
    """
    from segmentation_models_pytorch.losses import DiceLoss

    return over_heads(_dense(DiceLoss("multilabel", log_loss=log)), cross_entropy(), aux)


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

    cross, overlap = cross_entropy(positive, smoothing), _dense(DiceLoss("multilabel"))

    def term(logits: Tensor, target: Tensor) -> Tensor:
        return torch.add(bce * cross(logits, target), overlap(logits, target), alpha=dice)

    return over_heads(term, cross, aux)


def focal(*, gamma: float = 2.0, alpha: float | None = None, aux: float = 0.4) -> Loss:
    """Weigh pixels and labels of probability p_t by (1 - p_t)^gamma (Lin et al. 2017).

    `alpha` weighs positives and 1 - alpha negatives.
    """
    from segmentation_models_pytorch.losses import FocalLoss

    if 0 < gamma < 1:
        # (1 - p)^gamma has no finite slope where p is 1.
        raise UsageError(f"focal: gamma is {gamma}", hint="gamma=0, or 1 and above")
    if alpha is not None:
        _within("alpha", alpha, 0, 1)
    term = _dense(FocalLoss("multilabel", alpha=alpha, gamma=gamma))
    return over_heads(term, term, aux)


def lovasz(
    *, bce: float = 0.0, elu: bool = False, per_image: bool = False, aux: float = 0.4
) -> Loss:
    """Take the symmetric Lovasz hinge, mean of L(z, y) and L(-z, 1 - y) (Berman et al. 2018).

    Each class has a hinge of its own, over the batch or `per_image`. `elu` replaces the hinge
    max(0, e) by elu(e) + 1, which still pushes what is right by a margin (TGS salt 2018). `bce`
    adds that much cross-entropy. Labels get cross-entropy alone. Targets are cut at 0.5.
    """
    from segmentation_models_pytorch.losses import LovaszLoss

    hinge, cross = LovaszLoss("binary", per_image=per_image), cross_entropy()

    def side(logits: Tensor, true: Tensor) -> Tensor:
        if elu:
            # smp computes max(0, 1 - z s); these logits make it elu(1 - z s) + 1.
            sign = 2 * true - 1
            logits = -sign * F.elu(1 - logits * sign)
        planes = zip(logits.unbind(1), true.unbind(1), strict=True)
        return torch.stack([hinge(z.contiguous(), y.contiguous()) for z, y in planes]).mean()

    def term(logits: Tensor, target: Tensor) -> Tensor:
        # smp's steps are float32 whatever it is given.
        narrow, true = logits.float(), (target >= 0.5).float()
        both = (side(narrow, true) + side(-narrow, 1 - true)) / 2
        return both + bce * cross(logits, target) if bce else both

    return over_heads(term, cross, aux)


def tversky(*, alpha: float = 0.3, beta: float = 0.7, gamma: float = 1.0, aux: float = 0.4) -> Loss:
    """Take (1 - TP / (TP + alpha FP + beta FN))^gamma; labels get cross-entropy alone.

    beta above alpha buys recall (Salehi et al. 2017); alpha = beta = .5 is Dice, and so is the
    convention for absent classes. The power acts on the mean of classes, as in smp.
    """
    from segmentation_models_pytorch.losses import TverskyLoss

    if alpha < 0 or beta < 0 or gamma < 1:
        # Below 1 the power has no finite slope where every class is absent.
        raise UsageError(
            f"tversky: alpha={alpha}, beta={beta}, gamma={gamma}",
            hint="alpha and beta are 0 or above, gamma is 1 or above",
        )
    overlap = TverskyLoss("multilabel", alpha=alpha, beta=beta, gamma=gamma)
    return over_heads(_dense(overlap), cross_entropy(), aux)


def cross_entropy(positive: float = 1.0, smoothing: float = 0.0) -> Term:
    """Return the mean cross-entropy of logits, with targets smoothed as `bce` says."""
    _within("smoothing", smoothing, 0, 1)

    def term(logits: Tensor, target: Tensor) -> Tensor:
        weight = None if positive == 1 else logits.new_full((), positive)
        soft = target * (1 - smoothing) + 0.5 * smoothing if smoothing else target
        return F.binary_cross_entropy_with_logits(logits, soft, pos_weight=weight)

    return term


def over_heads(mask_term: Term, label_term: Term, aux: float) -> Loss:
    """Return the sum of `mask_term` on `mask` and `label_term` on `label`.

    `aux` times the mean of `mask_term` over `aux`, `aux1`, ... is added where a model gives them.
    """

    def loss(outputs: Tensors, target: Tensors) -> Tensor:
        wide = {name: widen(tensor) for name, tensor in outputs.items()}
        terms = []
        with torch.autocast(next(iter(wide.values())).device.type, enabled=False):
            if "mask" in wide:
                terms.append(mask_term(wide["mask"], target["mask"].to(wide["mask"].dtype)))
            if "label" in wide:
                terms.append(label_term(wide["label"], target["label"].to(wide["label"].dtype)))
            levels = [level for name, level in wide.items() if name.startswith("aux")]
            for level in levels:
                size = target["mask"].shape[-2:]
                logits = F.interpolate(level, size, mode="bilinear", align_corners=False)
                share = aux / len(levels)
                terms.append(share * mask_term(logits, target["mask"].to(logits.dtype)))
        return torch.stack(terms).sum()

    return loss


def widen(tensor: Tensor) -> Tensor:
    """Return half precision as float32, anything else as it is."""
    return tensor.float() if tensor.dtype in _HALVES else tensor


def _dense(term: Term) -> Term:
    # smp 0.5 takes views, which channels-last logits do not have.
    return lambda logits, target: term(logits.contiguous(), target.contiguous())


def _within(name: str, value: float, low: float, high: float) -> None:
    if not low <= value <= high:
        raise UsageError(f"{name} is {value}", hint=f"{name} is from {low} to {high}")

"""The max-margin loss on Gaussian affinities (Hayat et al., ICCV 2019, arXiv 1901.07711).

The model's head, `kagflow.infer.affinity`, says what an affinity d is and why p = d. The paper's
loss is the sum of a hinge and of a term that spreads the centres:

    L_mm = sum over j != y of max(0, margin + d_j - d_y),   y the one true class
    R    = mean over pairs j < k of (|w_j - w_k|^2 - mu)^2, mu the mean of |w_j - w_k|^2

Ours are questions that a pixel or image may answer yes to once, never, or several times. As in
calibrated label ranking (Fuernkranz et al. 2008) one more label, "none", stands between what is
true and what is not, with the affinity 0.5 everywhere, because a class is predicted where d > 0.5.
With it the paper's hinge over (true, untrue) pairs has three kinds of pairs:

    (class p, none)     max(0, margin + 0.5 - d_p)   for every true class p
    (none, class j)     max(0, margin + d_j - 0.5)   for every untrue class j
    (class p, class j)  max(0, margin + d_j - d_p)   the paper's own pairs

so background pushes features out of the balls of all classes. The hinge is 0, and so is the
gradient, where the margin is kept: easy background does not drown rare defects.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from kagflow.errors import UsageError
from kagflow.learn.losses import Loss, Tensors, over_heads, widen


def affinity(*, margin: float = 0.25, diversity: float = 1.0, aux: float = 0.4) -> Loss:
    """Ask d to keep `margin` from 0.5 on the right side, and the centres to be equidistant.

    Dense on `mask` and `aux`, by image on `label`. `diversity` weighs R (1 in the paper). The model
    must return its centres: `affinity: true` in its kwargs. Raises UsageError where it does not.
    """
    if not 0 < margin < 0.5:
        raise UsageError(
            f"affinity: margin is {margin}", hint="d is in 0..1, so margin is between 0 and 0.5"
        )

    def term(logits: Tensor, target: Tensor) -> Tensor:
        return max_margin(logits, target, margin=margin)

    hinge = over_heads(term, term, aux)

    def loss(outputs: Tensors, target: Tensors) -> Tensor:
        centres = [each for name, each in outputs.items() if name.endswith("_centres")]
        if not centres:
            raise UsageError(
                "the affinity loss found no centres in what the model returns",
                hint="add affinity: true to the kwargs of the smp or timm model",
            )
        spread = torch.stack([unevenness(widen(each)) for each in centres]).sum()
        return hinge(outputs, target) + diversity * spread

    return loss


def max_margin(logits: Tensor, target: Tensor, *, margin: float) -> Tensor:
    """Return the hinge summed over pairs, mean over pixels or images, from (N, K, ...) tensors.

    A soft target t counts t times as true and 1 - t times as untrue.
    """
    d = torch.sigmoid(logits)
    true, untrue = F.relu(margin + 0.5 - d), F.relu(margin + d - 0.5)
    with_none = torch.lerp(untrue, true, target).sum()
    # Pairs of classes are few: only where some class is true.
    rows = target.amax(1) > 0
    known, near = target.movedim(1, -1)[rows], d.movedim(1, -1)[rows]
    hinges = F.relu(margin + near[:, None, :] - near[:, :, None])
    among = (hinges * known[:, :, None] * (1 - known[:, None, :])).sum()
    return (with_none + among) / rows.numel()


def unevenness(centres: Tensor) -> Tensor:
    """Return R of centres `(M, D)`: the variance of their squared distances, 0 if equidistant."""
    if len(centres) < 2:
        return centres.new_zeros(())
    first, second = torch.triu_indices(len(centres), len(centres), 1, device=centres.device)
    distances = (centres[first] - centres[second]).square().sum(1)
    return (distances - distances.mean()).square().mean()

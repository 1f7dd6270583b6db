"""Losses against values worked out by hand, and their gradients."""

from __future__ import annotations

import math

import pytest
import torch

from kagflow.learn.losses import LOSSES
from kagflow.resolve import build


def loss_of(name, outputs, target, **kwargs):
    return build({"target": name, "kwargs": kwargs}, LOSSES)(outputs, target)


# One image, two classes, 1 x 2 pixels: logits log 3 and -log 3 are probabilities .75 and .25.
A = math.log(3)
MASK = {"mask": torch.tensor([[[[A, -A]], [[A, A]]]])}
TRUE = {"mask": torch.tensor([[[[1.0, 0.0]], [[1.0, 0.0]]]]), "label": torch.tensor([[1.0, 0.0]])}


def test_bce():
    # Three pixels cost -log .75, the wrong one -log .25.
    expected = -(3 * math.log(0.75) + math.log(0.25)) / 4
    assert loss_of("bce", MASK, TRUE).item() == pytest.approx(expected, rel=1e-6)


def test_bce_with_weighted_positives():
    expected = -(2 * 5 * math.log(0.75) + math.log(0.75) + math.log(0.25)) / 4
    assert loss_of("bce", MASK, TRUE, positive=5.0).item() == pytest.approx(expected, rel=1e-6)


def test_bce_with_smoothing():
    def cost(p, t):
        return -(t * math.log(p) + (1 - t) * math.log(1 - p))

    expected = (cost(0.75, 0.95) * 2 + cost(0.25, 0.05) + cost(0.75, 0.05)) / 4
    assert loss_of("bce", MASK, TRUE, smoothing=0.1).item() == pytest.approx(expected, rel=1e-6)


def test_bce_dice():
    # Soft Dice: class 0 2 * .75 / (1 + 1), class 1 2 * .75 / (1.5 + 1).
    cross = -(3 * math.log(0.75) + math.log(0.25)) / 4
    overlap = 1 - (0.75 + 0.6) / 2
    found = loss_of("bce_dice", MASK, TRUE, bce=2.0, dice=0.5).item()
    assert found == pytest.approx(2 * cross + 0.5 * overlap, rel=1e-5)


def test_focal():
    # (1 - p_t)^2 * -log p_t, mean over pixels.
    expected = -(3 * 0.25**2 * math.log(0.75) + 0.75**2 * math.log(0.25)) / 4
    assert loss_of("focal", MASK, TRUE).item() == pytest.approx(expected, rel=1e-5)


def test_lovasz():
    # One class, two pixels, true (1, 0), logits (A, A): errors 1 - A and 1 + A.
    # Sorted: the false positive first, jaccard steps (0 -> .5 -> 1); A > 1, so only it costs.
    outputs = {"mask": torch.tensor([[[[A, A]]]])}
    target = {"mask": torch.tensor([[[[1.0, 0.0]]]])}
    once = 0.5 * (1 + A)
    # Mirrored, true (0, 1) and logits (-A, -A): the missed pixel costs 1 + A at the full step.
    mirrored = 1.0 * (1 + A)
    found = loss_of("lovasz", outputs, target).item()
    assert found == pytest.approx((once + mirrored) / 2, rel=1e-5)


def test_labels_get_cross_entropy():
    outputs = {"label": torch.tensor([[A, A]])}
    expected = -(math.log(0.75) + math.log(0.25)) / 2
    for name in ("bce", "bce_dice", "lovasz"):
        assert loss_of(name, outputs, TRUE).item() == pytest.approx(expected, rel=1e-6)


def test_heads_add_up():
    both = {**MASK, "label": torch.tensor([[A, A]]), "aux": MASK["mask"]}
    mask, label = loss_of("bce", MASK, TRUE), loss_of("bce", {"label": both["label"]}, TRUE)
    assert loss_of("bce", both, TRUE).item() == pytest.approx((1.4 * mask + label).item(), rel=1e-6)


@pytest.mark.parametrize("name", sorted(LOSSES))
def test_gradients_and_extremes(name):
    torch.manual_seed(0)
    kind = torch.float if name == "lovasz" else torch.double  # smp's Lovasz steps are float32
    target = {"mask": (torch.rand(2, 3, 4, 4) > 0.7).to(kind)}
    logits = torch.randn(2, 3, 4, 4, dtype=kind, requires_grad=True)

    def value(given):
        return loss_of(name, {"mask": given}, target)

    if kind == torch.double:
        assert torch.autograd.gradcheck(value, (logits,))
    before = value(logits)
    step = torch.autograd.grad(before, logits)[0]
    assert value(logits - 0.01 * step) < before
    for extreme in (-80.0, 80.0):
        assert value(torch.full((2, 3, 4, 4), extreme, dtype=kind)).isfinite()

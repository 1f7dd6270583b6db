"""Losses against values worked out by hand, and their gradients."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from kagflow.errors import UsageError
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


def test_focal_weighs_positives_by_alpha():
    # True pixels are right at .75; of the others one is right at .75, one wrong at .25.
    right, wrong = 0.25**2 * math.log(0.75), 0.75**2 * math.log(0.25)
    expected = -(0.9 * 2 * right + 0.1 * (right + wrong)) / 4
    found = loss_of("focal", MASK, TRUE, alpha=0.9).item()
    assert found == pytest.approx(expected, rel=1e-5)


def test_dice_leaves_absent_classes_out():
    absent = {"mask": TRUE["mask"] * torch.tensor([1.0, 0.0]).reshape(1, 2, 1, 1)}
    assert loss_of("dice", MASK, TRUE).item() == pytest.approx(1 - (0.75 + 0.6) / 2, rel=1e-5)
    assert loss_of("dice", MASK, absent).item() == pytest.approx((1 - 0.75) / 2, rel=1e-5)
    logs = -(math.log(0.75) + math.log(0.6)) / 2
    assert loss_of("dice", MASK, TRUE, log=True).item() == pytest.approx(logs, rel=1e-5)


def test_tversky():
    # Class 0: TP .75, FP .25, FN .25; class 1: TP .75, FP .75, FN .25.
    first, second = 0.75 / (0.75 + 0.2 * 0.25 + 0.9 * 0.25), 0.75 / (0.75 + 0.2 * 0.75 + 0.225)
    expected = ((1 - first + 1 - second) / 2) ** 1.5
    found = loss_of("tversky", MASK, TRUE, alpha=0.2, beta=0.9, gamma=1.5).item()
    assert found == pytest.approx(expected, rel=1e-5)


def lovasz_by_definition(z, y, shape):
    """Sum the steps of the Jaccard loss in numpy, error by error (Berman et al. 2018, eq. 8)."""
    errors = shape(1 - z * (2 * y - 1))
    total, wrong, before = 0.0, np.zeros_like(y, bool), 0.0
    for at in np.argsort(-errors):
        wrong[at] = True
        true, found = y == 1, (y == 1) ^ wrong
        jaccard = 1 - (true & found).sum() / max((true | found).sum(), 1)
        total += errors[at] * (jaccard - before)
        before = jaccard
    return total


@pytest.mark.parametrize("elu", [False, True])
@pytest.mark.parametrize("per_image", [False, True])
def test_lovasz_against_its_definition(elu, per_image):
    rng = np.random.default_rng(0)
    z, y = rng.normal(0, 2, (3, 2, 4, 5)), (rng.random((3, 2, 4, 5)) > 0.7) * 1.0
    y[0, 1] = 0
    y[1, 0] = 1

    def shape(e):
        return np.where(e > 0, e + 1, np.exp(e)) if elu else np.maximum(e, 0)

    sides = []
    for sign, true in ((1, y), (-1, 1 - y)):
        for k in range(2):
            images = [np.s_[n : n + 1] for n in range(3)] if per_image else [np.s_[:]]
            sides += [
                np.mean(
                    [
                        lovasz_by_definition(sign * z[i, k].ravel(), true[i, k].ravel(), shape)
                        for i in images
                    ]
                )
            ]
    outputs, target = {"mask": torch.tensor(z)}, {"mask": torch.tensor(y)}
    found = loss_of("lovasz", outputs, target, elu=elu, per_image=per_image).item()
    assert found == pytest.approx(np.mean(sides), rel=1e-5)


def test_soft_targets_and_smoothing_are_one_thing():
    soft = {"mask": TRUE["mask"] * 0.8 + 0.1}
    expected = loss_of("bce", MASK, soft).item()
    p, t = torch.sigmoid(MASK["mask"]), soft["mask"]
    assert expected == pytest.approx((-t * p.log() - (1 - t) * (1 - p).log()).mean().item())
    assert loss_of("soft_bce", MASK, TRUE, smoothing=0.2).item() == pytest.approx(expected)
    assert loss_of("bce", MASK, TRUE, smoothing=0.2).item() == pytest.approx(expected)
    assert loss_of("soft_bce", MASK, soft, smoothing=0.0).item() == pytest.approx(expected)


@pytest.mark.parametrize(
    ("name", "kwargs"),
    [
        ("bce", {"smoothing": 1.5}),
        ("soft_bce", {"smoothing": -0.1}),
        ("focal", {"gamma": 0.5}),
        ("focal", {"alpha": 2.0}),
        ("tversky", {"gamma": 0.7}),
    ],
)
def test_values_without_a_meaning_are_refused(name, kwargs):
    with pytest.raises(UsageError, match=next(iter(kwargs))):
        loss_of(name, MASK, TRUE, **kwargs)

"""Weighted sums: their value, their parameters, their faults."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from kagflow.errors import UsageError
from kagflow.learn.losses import LOSSES
from kagflow.resolve import build

OUTPUTS = {"mask": torch.tensor([[[[1.0, -2.0]], [[0.5, 0.0]]]])}
TARGET = {"mask": torch.tensor([[[[1.0, 0.0]], [[0.0, 1.0]]]])}


def total(*terms):
    return build({"target": "sum", "kwargs": {"terms": list(terms)}}, LOSSES)


def test_terms_are_weighed_and_added():
    one = build({"target": "bce", "kwargs": {"positive": 3.0}}, LOSSES)(OUTPUTS, TARGET)
    other = build({"target": "dice"}, LOSSES)(OUTPUTS, TARGET)
    loss = total({"target": "bce", "weight": 0.25, "kwargs": {"positive": 3.0}}, {"target": "dice"})
    expected = 0.25 * one.item() + other.item()
    assert loss(OUTPUTS, TARGET).item() == pytest.approx(expected, rel=1e-6)


def test_a_sum_of_bce_and_dice_is_bce_dice():
    loss = total({"target": "bce", "weight": 2}, {"target": "dice", "weight": 0.5})
    both = build({"target": "bce_dice", "kwargs": {"bce": 2.0, "dice": 0.5}}, LOSSES)
    assert loss(OUTPUTS, TARGET).item() == pytest.approx(both(OUTPUTS, TARGET).item(), rel=1e-6)


class Tempered(nn.Module):
    """A loss with a parameter of its own."""

    def __init__(self):
        super().__init__()
        self.heat = nn.Parameter(torch.ones(()))

    def forward(self, outputs, target):
        return (self.heat * outputs["mask"] - target["mask"]).square().mean()


def test_a_users_loss_and_its_parameters_join():
    loss = total({"target": "bce"}, {"target": f"{__name__}:Tempered", "weight": 2.0})
    assert [name for name, _ in loss.named_parameters()] == ["learned.0.heat"]
    (heat,) = loss.parameters()
    before = loss(OUTPUTS, TARGET).item()
    with torch.no_grad():
        heat.mul_(2)
    assert loss(OUTPUTS, TARGET).item() != before
    assert torch.autograd.grad(loss(OUTPUTS, TARGET), heat)[0] != 0


@pytest.mark.parametrize(
    ("terms", "said"),
    [
        ([], "no terms"),
        ([{"target": "bce"}, {"target": "dicee"}], "term 2: unknown name 'dicee'"),
        ([{"target": "bce", "kwargs": {"positiv": 2}}], "term 1.*positiv"),
        ([{"target": "bce", "wieght": 2}], "term 1 takes no 'wieght'"),
        ([{"weight": 2}], "term 1 has no target"),
        ([{"target": "bce", "weight": "much"}], "term 1: weight is 'much'"),
        (["bce"], "term 1 takes no 'bce'"),
    ],
)
def test_the_term_at_fault_is_named(terms, said):
    with pytest.raises(UsageError, match=said):
        total(*terms)

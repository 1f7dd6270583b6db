"""Every built-in loss where losses break: gradients, extremes, half precision, odd shapes."""

from __future__ import annotations

import pytest
import torch

from kagflow.learn.losses import LOSSES
from kagflow.resolve import build

SPECS = {
    **{name: {"target": name} for name in sorted(set(LOSSES) - {"sum"})},
    "dice_log": {"target": "dice", "kwargs": {"log": True}},
    "focal_alpha": {"target": "focal", "kwargs": {"gamma": 1.5, "alpha": 0.25}},
    "lovasz_elu": {"target": "lovasz", "kwargs": {"elu": True, "bce": 0.5}},
    "lovasz_per_image": {"target": "lovasz", "kwargs": {"per_image": True}},
    "tversky_power": {"target": "tversky", "kwargs": {"gamma": 1.33}},
    "sum": {
        "target": "sum",
        "kwargs": {"terms": [{"target": "bce"}, {"target": "dice", "weight": 0.5}]},
    },
}
CENTRES = torch.eye(3)
EMPTY, FULL = torch.zeros(2, 3, 4, 4), torch.ones(2, 3, 4, 4)
ABSENT = torch.ones(2, 3, 4, 4) * torch.tensor([1.0, 0.0, 1.0]).reshape(1, 3, 1, 1)


def value_of(name, logits, target, head="mask"):
    centres = {f"{head}_centres": CENTRES.to(logits.device)} if name == "affinity" else {}
    return build(SPECS[name], LOSSES)({head: logits, **centres}, {head: target})


def value_and_slope(name, logits, target, head="mask"):
    given = logits.clone().requires_grad_()
    value = value_of(name, given, target, head)
    (slope,) = torch.autograd.grad(value, given)
    return value.detach(), slope


def random_case(kind):
    torch.manual_seed(0)
    return torch.randn(2, 3, 4, 4, dtype=kind), (torch.rand(2, 3, 4, 4) > 0.7).to(kind)


@pytest.mark.parametrize("name", SPECS)
@pytest.mark.parametrize("head", ["mask", "label", "aux"])
def test_gradients_are_those_of_the_value(name, head):
    logits, target = random_case(torch.double)
    if head == "label":
        logits, target = logits[:, :, 0, 0], target[:, :, 0, 0]
    logits = logits.clone().requires_grad_()

    def value(given):
        if head != "aux":
            return value_of(name, given, target, head)
        loss = build(SPECS[name], LOSSES)
        centres = {"mask_centres": CENTRES} if name == "affinity" else {}
        return loss({"aux": given[..., ::2, ::2], **centres}, {"mask": target})

    if "lovasz" in name and head != "label":
        # smp's Lovasz steps are float32; a stretch of a piecewise linear function is exact.
        assert torch.autograd.gradcheck(value, (logits,), eps=1e-3, atol=1e-3)
    else:
        assert torch.autograd.gradcheck(value, (logits,))


@pytest.mark.parametrize("name", SPECS)
def test_a_step_down_the_gradient_helps(name):
    logits, target = random_case(torch.float)
    before, slope = value_and_slope(name, logits, target)
    assert value_of(name, logits - 0.01 * slope, target) < before


@pytest.mark.parametrize("name", SPECS)
@pytest.mark.parametrize("kind", [torch.float16, torch.bfloat16, torch.float32])
@pytest.mark.parametrize("target", [EMPTY, FULL, ABSENT], ids=["empty", "full", "absent"])
def test_extreme_logits_are_finite_in_every_precision(name, kind, target):
    for logit in (-40.0, 0.0, 40.0):
        value, slope = value_and_slope(name, torch.full((2, 3, 4, 4), logit, dtype=kind), target)
        assert value.isfinite()
        assert slope.isfinite().all()
        assert value.dtype == torch.float32


@pytest.mark.parametrize("name", SPECS)
def test_what_is_right_costs_less_than_what_is_wrong(name):
    _, target = random_case(torch.float)
    right, wrong = (
        value_of(name, 8 * (2 * target - 1), target),
        value_of(name, -8 * (2 * target - 1), target),
    )
    assert right < 0.35 * wrong


@pytest.mark.parametrize("name", SPECS)
def test_rounding_to_half_changes_little(name):
    logits, target = random_case(torch.float)
    exact = value_of(name, logits, target)
    assert value_of(name, logits.half(), target) == pytest.approx(exact.item(), rel=2e-3)
    assert value_of(name, logits.bfloat16(), target) == pytest.approx(exact.item(), rel=2e-2)


@pytest.mark.parametrize("name", SPECS)
def test_autocast_around_a_loss_changes_nothing(name):
    logits, target = random_case(torch.float)
    alone, slope = value_and_slope(name, logits, target)
    with torch.autocast("cpu", torch.bfloat16):
        inside, slope_inside = value_and_slope(name, logits, target)
    assert inside == alone
    assert torch.equal(slope, slope_inside)


@pytest.mark.parametrize("name", SPECS)
@pytest.mark.parametrize("shape", [(1, 3, 1, 1), (1, 3, 2, 5), (3, 1, 4, 4)])
def test_small_batches_and_one_class(name, shape):
    torch.manual_seed(0)
    logits = torch.randn(shape)
    value, slope = value_and_slope(name, logits, (torch.rand(shape) > 0.5).float())
    assert value.isfinite()
    assert slope.isfinite().all()


@pytest.mark.parametrize("name", SPECS)
def test_soft_targets_and_bytes_are_taken(name):
    logits, target = random_case(torch.float)
    _, slope = value_and_slope(name, logits, target * 0.8 + 0.1)
    assert slope.isfinite().all()
    assert value_of(name, logits, target.to(torch.uint8)) == value_of(name, logits, target)


@pytest.mark.parametrize("name", SPECS)
def test_channels_last_is_taken(name):
    logits, target = random_case(torch.float)
    last = logits.contiguous(memory_format=torch.channels_last)
    same = target.contiguous(memory_format=torch.channels_last)
    expected = value_of(name, logits, target).item()
    assert value_of(name, last, same).item() == pytest.approx(expected, rel=1e-5)

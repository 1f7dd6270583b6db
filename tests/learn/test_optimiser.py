"""Parameter groups, schedules and the moving average."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from kagflow.learn.ema import build_ema
from kagflow.learn.optimiser import build_optimiser, constant, cosine, onecycle

SPEC = {"target": "adamw", "lr": 0.1, "weight_decay": 0.05, "encoder_lr": 0.2, "kwargs": {}}


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4))
        self.head = nn.Conv2d(4, 2, 1)


def groups(model, **changes):
    return build_optimiser(model, SPEC | changes).param_groups


def test_encoder_is_slow_and_norms_and_biases_do_not_decay():
    model = Net()
    found = {
        id(parameter): (group["lr"], group["weight_decay"])
        for group in groups(model)
        for parameter in group["params"]
    }
    expected = {
        "encoder.0.weight": (0.02, 0.05), "encoder.0.bias": (0.02, 0.0),
        "encoder.1.weight": (0.02, 0.0), "encoder.1.bias": (0.02, 0.0),
        "head.weight": (0.1, 0.05), "head.bias": (0.1, 0.0),
    }  # fmt: skip
    for name, parameter in model.named_parameters():
        assert found[id(parameter)] == pytest.approx(expected[name]), name


def test_a_classifier_is_encoder_but_for_its_last_layer():
    import timm

    model = timm.create_model("resnet18", num_classes=3)
    fast = [p for group in groups(model) if group["lr"] == 0.1 for p in group["params"]]
    assert {id(p) for p in fast} == {id(p) for p in model.get_classifier().parameters()}


def test_any_optimiser_of_torch():
    found = build_optimiser(
        Net(), SPEC | {"target": "torch.optim:SGD", "kwargs": {"momentum": 0.9}}
    )
    assert isinstance(found, torch.optim.SGD)
    assert found.param_groups[0]["momentum"] == 0.9


def rates(make, steps, **kwargs):
    optimiser = torch.optim.SGD(Net().parameters(), lr=1.0)
    schedule, seen = make(optimiser, steps=steps, **kwargs), []
    for _ in range(steps):
        seen.append(optimiser.param_groups[0]["lr"])
        optimiser.step()
        schedule.step()
    return seen


def test_cosine_with_warm_up():
    seen = rates(cosine, 100, warmup=0.1, floor=0.01)
    assert seen[:10] == pytest.approx([(step + 1) / 11 for step in range(10)])
    assert seen[10] == 1.0
    assert seen[55] == pytest.approx(0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi / 2)))
    assert 0.01 < seen[-1] < 0.011
    assert rates(cosine, 10, warmup=0)[0] == 1.0
    assert rates(constant, 3) == [1.0] * 3


@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_one_cycle(momentum):
    optimiser = torch.optim.SGD(Net().parameters(), lr=1.0, momentum=momentum)
    schedule, seen, moments = onecycle(optimiser, steps=101, warmup=0.2), [], []
    for _ in range(101):
        seen.append(optimiser.param_groups[0]["lr"])
        moments.append(optimiser.param_groups[0]["momentum"])
        optimiser.step()
        schedule.step()
    assert (seen[0], max(seen), seen.index(max(seen))) == pytest.approx((1 / 25, 1.0, 20), abs=1e-2)
    assert seen[-1] == pytest.approx(1 / 25 / 1e4)
    ends = (0.85, 0.95) if momentum else (0.0, 0.0)
    assert (min(moments), max(moments)) == pytest.approx(ends, abs=1e-3)


def test_parameters_of_a_loss_are_a_group_of_their_own():
    loss = nn.Linear(2, 2)
    *_, last = build_optimiser(Net(), SPEC, loss).param_groups
    assert [id(one) for one in last["params"]] == [id(one) for one in loss.parameters()]
    assert (last["lr"], last["weight_decay"]) == (0.1, 0.0)


def test_average_with_warm_up_of_its_decay():
    model = nn.Linear(1, 1, bias=False)
    ema, expected = build_ema(model, 0.5), 0.0
    for count, value in enumerate([1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 512.0]):
        model.weight.data.fill_(value)
        ema.update_parameters(model)
        decay = min(0.5, (1 + count) / (10 + count))
        expected = value if count == 0 else decay * expected + (1 - decay) * value
    assert ema.module.weight.item() == pytest.approx(expected)
    assert decay == 0.5


def test_average_takes_buffers_and_may_be_off():
    model = Net()
    ema = build_ema(model, 0.9)
    ema.update_parameters(model)
    model.encoder[1].running_mean += 10
    ema.update_parameters(model)
    assert 0 < ema.module.encoder[1].running_mean[0].item() < 10
    assert build_ema(model, 0.0) is None

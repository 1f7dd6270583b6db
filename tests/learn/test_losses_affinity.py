"""The affinity loss against the paper's sums written out, and on a problem of 1 in 50."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from kagflow.errors import UsageError
from kagflow.infer.affinity import Affinity
from kagflow.learn.losses import LOSSES
from kagflow.learn.losses_affinity import max_margin, unevenness
from kagflow.resolve import build

ZERO = torch.zeros(1, 2)


def hinge_written_out(d, y, margin):
    """Sum max(0, margin + d_untrue - d_true) over the pairs of one row, with "none" at 0.5."""
    true = [value for value, yes in zip(d, y, strict=True) if yes]
    untrue = [value for value, yes in zip(d, y, strict=True) if not yes]
    pairs = [(p, j) for p in true for j in untrue]
    pairs += [(p, 0.5) for p in true] + [(0.5, j) for j in untrue]
    return sum(max(0.0, margin + j - p) for p, j in pairs)


@pytest.mark.parametrize("shape", [(40, 3), (2, 4, 3, 5), (6, 1)])
def test_the_hinge_is_the_papers(shape):
    torch.manual_seed(0)
    logits, target = torch.randn(shape).double(), (torch.rand(shape) > 0.6).double()
    rows = [
        tensor.movedim(1, -1).reshape(-1, shape[1]).numpy()
        for tensor in (torch.sigmoid(logits), target)
    ]
    expected = np.mean([hinge_written_out(d, y, 0.3) for d, y in zip(*rows, strict=True)])
    assert max_margin(logits, target, margin=0.3).item() == pytest.approx(expected)


def test_a_kept_margin_costs_nothing():
    d = torch.tensor([[0.76, 0.24], [0.24, 0.2]])
    target = torch.tensor([[1.0, 0.0], [0.0, 0.0]])
    assert max_margin(torch.logit(d), target, margin=0.25) == 0
    assert max_margin(torch.logit(d), target, margin=0.27) > 0


def test_the_spread_term_is_the_variance_of_squared_distances():
    centres = torch.tensor([[0.0, 0.0], [3.0, 0.0], [0.0, 4.0]])
    # 9, 16 and 25 have mean 50/3.
    assert unevenness(centres).item() == pytest.approx(np.var([9, 16, 25]), rel=1e-5)
    assert unevenness(torch.eye(5)) == 0
    assert unevenness(torch.ones(1, 4)) == 0


def test_the_spread_term_makes_centres_equidistant():
    torch.manual_seed(0)
    centres = nn.Parameter(torch.randn(4, 6))
    before = unevenness(centres).item()
    steps = torch.optim.SGD([centres], lr=0.02)
    for _ in range(200):
        steps.zero_grad()
        unevenness(centres).backward()
        steps.step()
    assert unevenness(centres).item() < 1e-3 * before


def test_a_loss_is_hinge_and_spread_of_every_head():
    torch.manual_seed(0)
    outputs = {
        "mask": torch.randn(2, 3, 4, 4),
        "label": torch.randn(2, 3),
        "mask_centres": torch.randn(3, 5),
        "label_centres": torch.randn(3, 5),
    }
    target = {"mask": (torch.rand(2, 3, 4, 4) > 0.5).float(), "label": torch.eye(3)[:2]}
    loss = build({"target": "affinity", "kwargs": {"diversity": 0.5}}, LOSSES)
    expected = sum(
        max_margin(outputs[head], target[head], margin=0.25)
        + 0.5 * unevenness(outputs[f"{head}_centres"])
        for head in ("mask", "label")
    )
    assert loss(outputs, target).item() == pytest.approx(expected.item(), rel=1e-6)


def test_faults_are_named():
    with pytest.raises(UsageError, match="margin"):
        build({"target": "affinity", "kwargs": {"margin": 0.5}}, LOSSES)
    with pytest.raises(UsageError, match="no centres"):
        build({"target": "affinity"}, LOSSES)(
            {"label": torch.zeros(1, 2)}, {"label": torch.zeros(1, 2)}
        )


def rare(count, rng):
    """Draw points of which 1 in 50 each belong to two classes, the rest to none."""
    y = np.zeros((count, 2), np.float32)
    y[: count // 50, 0] = 1
    y[count // 50 : 2 * (count // 50), 1] = 1
    x = rng.normal(0, 1, (count, 4)).astype(np.float32)
    x[:, 0] += 2.5 * y[:, 0] - 2.5 * y[:, 1]
    x[:, 1] += 2.5 * y.any(1)
    return torch.tensor(x), torch.tensor(y)


def train(head, loss, data, steps=250):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 32), nn.ReLU(), nn.Linear(32, 16), head)
    optimiser = torch.optim.AdamW(model.parameters(), lr=0.01)
    values = []
    for _ in range(steps):
        outputs = {"label": model(data[0])}
        if isinstance(head, Affinity):
            outputs["label_centres"] = head.points
        value = loss(outputs, {"label": data[1]})
        optimiser.zero_grad()
        value.backward()
        optimiser.step()
        values.append(value.item())
    return model, values


def recall(model, data):
    with torch.no_grad():
        found = (model(data[0]) > 0).float()
    return ((found * data[1]).sum(0) / data[1].sum(0)).min().item()


def test_it_learns_what_is_rare():
    rng = np.random.default_rng(0)
    data, fresh = rare(5000, rng), rare(5000, rng)
    torch.manual_seed(0)
    head = Affinity(16, 2)
    with torch.no_grad():
        # Start from centres that lie together.
        head.points.copy_(head.points[:1] + 0.1 * head.points)
    apart = (head.points[0] - head.points[1]).norm().item()
    model, values = train(head, build({"target": "affinity"}, LOSSES), data)
    plain, _ = train(nn.Linear(16, 2), build({"target": "bce"}, LOSSES), data)
    assert values[-1] < 0.3 * values[0]
    assert (head.points[0] - head.points[1]).norm().item() > 2 * apart
    assert recall(model, fresh) > 0.6
    assert recall(model, fresh) > recall(plain, fresh) - 0.15

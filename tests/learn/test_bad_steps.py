"""F12: steps that are no numbers change nothing; too many of them, or such weights, end a run."""

from __future__ import annotations

import json
import math
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from kagflow.errors import DataError
from kagflow.learn import checkpoint, loop
from kagflow.learn.ema import build_ema
from kagflow.learn.job import Job
from kagflow.learn.loop import Plan
from kagflow.learn.optimiser import constant
from kagflow.learn.state import State
from kagflow.learn.step import Stepper, build_scaler
from kagflow.learn.train import train

CPU = torch.device("cpu")


def mean_of_mask(outputs, target):
    return outputs["mask"].mean() ** 2


def endless(outputs, target):
    """A loss that is no number though its gradient is."""
    return mean_of_mask(outputs, target) + math.inf


def steep(outputs, target):
    """A loss of zero whose gradient is no number."""
    return (outputs["mask"].mean() * 0).sqrt()


def stepper(loss=mean_of_mask, *, fused=True, accumulate=1, clip=1.0, model=None):
    torch.manual_seed(0)
    model = (
        model()
        if model
        else nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.Conv2d(2, 1, 1))
    )
    optimiser = torch.optim.AdamW(model.parameters(), lr=0.1, fused=fused, foreach=not fused)
    schedule = constant(optimiser, steps=9)
    ema = build_ema(model, 0.9)
    state = State(model, ema, optimiser, schedule, build_scaler(CPU, torch.float32))
    plan = Plan(
        folder=None, data=SimpleNamespace(finish=dict), draws=None, samples=8, loss=loss,
        predicts="mask", epochs=1, batch=2, workers=0, device=CPU, dtype=torch.float32,
        clip=clip, accumulate=accumulate,
    )  # fmt: skip
    return state, Stepper(state, plan)


def batch(seed=0, fill=None):
    image = torch.randn(2, 1, 8, 8, generator=torch.Generator().manual_seed(seed))
    return {"image": image if fill is None else torch.full_like(image, fill)}


def numbers(state):
    parts = {"model": state.model, "optimiser": state.optimiser}
    flat, _ = torch.utils._pytree.tree_flatten({k: v.state_dict() for k, v in parts.items()})
    return [
        one.clone() for one in flat if isinstance(one, torch.Tensor) and one.is_floating_point()
    ]


@pytest.mark.parametrize("fused", [True, False])
@pytest.mark.parametrize(
    ("loss", "fill"),
    [(mean_of_mask, math.nan), (mean_of_mask, math.inf), (endless, None), (steep, 1)],
)
def test_a_bad_step_changes_no_weight_and_no_statistic(loss, fill, fused):
    state, steps = stepper(loss=mean_of_mask, fused=fused)
    assert steps.step([batch()]).read()[1]
    before, ema = numbers(state), [one.clone() for one in state.ema.parameters()]
    object.__setattr__(steps._plan, "loss", loss)
    assert not steps.step([batch(fill=fill)]).read()[1]
    assert all(torch.equal(a, b) for a, b in zip(before, numbers(state), strict=True))
    assert state.broken() == []
    assert ema
    object.__setattr__(steps._plan, "loss", mean_of_mask)
    assert steps.step([batch(1)]).read()[1]
    assert not all(torch.equal(a, b) for a, b in zip(before, numbers(state), strict=True))


def test_one_bad_batch_spoils_its_window():
    state, steps = stepper(accumulate=2)
    steps.step([batch(), batch(1)])
    before = numbers(state)
    assert not steps.step([batch(2), batch(fill=math.nan)]).read()[1]
    assert all(torch.equal(a, b) for a, b in zip(before, numbers(state), strict=True))


@pytest.mark.parametrize("clip", [0.0, 0.01])
def test_a_window_of_batches_is_a_step_on_them_together(clip):
    """Without batch norm, four batches of two are one batch of eight; a short window too."""
    for count in (4, 3):
        parts, ends = [batch(seed) for seed in range(count)], []
        for window in (parts, [{"image": torch.cat([one["image"] for one in parts])}]):
            state, steps = stepper(
                lambda outputs, target: (outputs["mask"] ** 2).mean(), clip=clip, accumulate=4,
                model=lambda: nn.Conv2d(1, 1, 3),
            )  # fmt: skip
            loss, _ = steps.step(window).read()
            ends.append([loss, *state.model.weight.grad.flatten().tolist()])
            assert not clip or abs(float(state.model.weight.grad.norm()) - clip) < clip / 2
        assert ends[0] == pytest.approx(ends[1], rel=1e-4)


def job(squares, spec, recipe, run_dir, **changes):
    model = {"target": "tiny_models:Broken", "kwargs": changes.pop("broken")}
    return Job(run_dir, recipe(model=model, **changes), spec, squares, 0, "cpu", save_every=0)


def test_twenty_bad_steps_are_borne_and_one_more_is_not(squares, spec, recipe, run_dir):
    whole = job(squares, spec, recipe, run_dir, broken={"after": 7}, epochs=20)
    with pytest.raises(DataError, match="more than 20 steps in a row, up to step") as caught:
        train(whole)
    assert "optimiser.lr" in caught.value.hint
    # Nothing was saved since the last good step.
    assert {path.name for path in run_dir.glob("ckpt-*.pt")} == {"ckpt-6.pt", "ckpt-7.pt"}
    assert checkpoint.newest(run_dir).state["streak"] == []
    dumped = json.loads((run_dir / "bad-batches.json").read_text())
    assert str(run_dir / "bad-batches.json") in caught.value.message
    assert len(dumped["images"]) == 21
    assert all(len(names) == 4 for names in dumped["images"])
    assert {name for names in dumped["images"] for name in names} <= {
        f"{n:03}.png" for n in range(24)
    }
    other = run_dir.parents[1] / "borne" / "fold0"
    borne = job(squares, spec, recipe, other, broken={"after": 7, "until": 27}, epochs=10)
    assert train(borne).score >= 0
    assert not (other / "bad-batches.json").exists()


def test_weights_that_are_no_numbers_are_never_saved(squares, spec, recipe, run_dir, monkeypatch):
    step = Stepper.step

    def poison(self, window):
        told = step(self, window)
        if self._state.step == 4:
            self._state.model.head.bias.data[0] = math.inf
        return told

    monkeypatch.setattr(loop.Stepper, "step", poison)
    with pytest.raises(DataError, match=r"no numbers, the first is model\.head\.bias"):
        train(job(squares, spec, recipe, run_dir, broken={"after": 99}, epochs=9))
    assert checkpoint.newest(run_dir).step == 4
    assert all(v.isfinite().all() for v in checkpoint.newest(run_dir).state["model"].values())

"""The figures of training under way, for whoever watches and for the epoch's line."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from kagflow.learn.loop import Plan
    from kagflow.learn.state import State


def figures(state: State, plan: Plan) -> dict[str, Any]:
    """Return epoch, step, the mean loss so far, images a second, the share of time spent waiting.

    On a GPU `gpu_mib` is the memory that was reserved at most in this epoch.
    """
    running = state.running
    found: dict[str, Any] = {
        "epoch": state.epoch,
        "step": state.step,
        "loss": running.loss / max(running.steps, 1),
        "images_per_second": running.images / max(running.seconds, 1e-9),
        "wait_share": running.waited / max(running.seconds, 1e-9),
    }
    if plan.device.type == "cuda":
        found["gpu_mib"] = torch.cuda.max_memory_reserved(plan.device) / 2**20
    return found


def seconds_left(state: State, plan: Plan) -> float:
    """Estimate the time to the last step, glances and checkpoints included, at the speed so far."""
    spent = sum(state.time.values()) - state.time["predict"]
    return spent / max(state.step, 1) * max(plan.steps - state.step, 0)

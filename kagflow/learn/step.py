"""One optimiser step: forward, loss and backward of a window of batches, then an update.

A step whose loss or gradient is no number changes no weight and no running statistic. That is
settled on the device, so that a GPU never waits for the host to look.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn.utils import clip_grads_with_norm_, get_total_norm

from kagflow.errors import UsageError
from kagflow.infer.models import named_outputs
from kagflow.learn.dataset import Sample
from kagflow.learn.state import State

if TYPE_CHECKING:
    from kagflow.learn.loop import Plan


class Told:
    """A step's loss and gradient norm, on their way from the device to the host."""

    def __init__(self, loss: Tensor, norm: Tensor) -> None:
        self._values = torch.stack([loss, norm]).to("cpu", non_blocking=True)
        self._event = None
        if loss.is_cuda:
            self._event = torch.cuda.Event()  # type: ignore[no-untyped-call]
            self._event.record()

    def read(self) -> tuple[float, bool]:
        """Return the loss, and whether it and the gradient were numbers, waiting for the step."""
        if self._event is not None:
            self._event.synchronize()
        loss, norm = self._values.tolist()
        return loss, math.isfinite(loss) and math.isfinite(norm)


class Stepper:
    """Take steps on a state."""

    def __init__(self, state: State, plan: Plan) -> None:
        self._state = state
        self._plan = plan
        modules = [state.model, *([] if state.loss is None else [state.loss])]
        buffers = [one for module in modules for one in module.buffers()]
        self._buffers = [one for one in buffers if one.is_floating_point()]
        self._before = [torch.empty_like(one) for one in self._buffers]
        self._begun = False

    def step(self, window: list[Sample]) -> Told:
        """Take one step on the mean loss of a window's batches."""
        state, plan = self._state, self._plan
        if self._buffers:
            torch._foreach_copy_(self._before, self._buffers)
        self._to_training()
        state.optimiser.zero_grad(set_to_none=True)
        total = torch.zeros((), device=plan.device)
        for batch in window:
            loss = self._loss(batch) / len(window)
            # The gradient of a loss that is no number may well be one: it is spoilt, so that the
            # scaler sees it.
            spoilt = torch.where(loss.isfinite(), 1.0, math.nan)
            torch.autograd.backward(state.scaler.scale(loss), spoilt)
            total += loss.detach()
        plan.ranks.add_up(state.model.parameters())
        norm = self._update()
        self._undo_statistics(total.isfinite() & norm.isfinite())
        if state.ema is not None:
            state.ema.update_parameters(state.model)
        state.schedule.step()
        return Told(total, norm)

    def _loss(self, batch: Sample) -> Tensor:
        state, plan = self._state, self._plan
        moved = {key: value.to(plan.device, non_blocking=True) for key, value in batch.items()}
        moved = plan.data.finish(moved)
        images = moved.pop("image").contiguous(memory_format=torch.channels_last)
        with torch.autocast(plan.device.type, plan.dtype, enabled=plan.dtype != torch.float32):
            # A compiled module has no truth value: it would ask for its length.
            forward = state.model if state.forward is None else state.forward
            outputs = named_outputs(forward(images), plan.predicts)
        whole = plan.ranks.whole
        return plan.loss(whole(_floats(outputs)), whole(_floats(moved)))

    def _update(self) -> Tensor:
        """Clip and step, unless a gradient is no number; return the norm before clipping."""
        scaler, optimiser = self._state.scaler, self._state.optimiser
        parameters = [one for group in optimiser.param_groups for one in group["params"]]
        scaler.unscale_(optimiser)
        norm = get_total_norm([one.grad for one in parameters if one.grad is not None])
        if self._plan.clip:
            clip_grads_with_norm_(parameters, self._plan.clip, norm)
        # A fused optimiser reads the scaler's verdict on the device; for any other it is awaited.
        scaler.step(optimiser)
        scaler.update(None if self._plan.dtype == torch.float16 else 1.0)
        return norm

    def _to_training(self) -> None:
        """Switch to training mode after something else; telling every module costs a small step."""
        if not self._begun or not self._state.model.training:
            self._state.model.train()
            self._begun = True

    def _undo_statistics(self, fine: Tensor) -> None:
        # A CPU waits for nothing when it looks, a GPU would.
        if not fine.is_cuda and fine.item():
            return
        for now, before in zip(self._buffers, self._before, strict=True):
            torch.where(fine, now, before, out=now)


def build_scaler(device: torch.device, dtype: torch.dtype) -> torch.amp.GradScaler:
    """Return what skips steps that are no numbers; in fp16 it also scales the loss."""
    if dtype == torch.float16:
        return torch.amp.GradScaler(device.type)
    return torch.amp.GradScaler(device.type, init_scale=1.0)


def precision(wanted: str, device: torch.device) -> torch.dtype:
    """Return the type to compute in; auto takes what the device is fast and safe in.

    Raises UsageError for fp16 without a GPU, which has no loss scaling.
    """
    if wanted == "fp16" and device.type != "cuda":
        raise UsageError("precision: fp16 needs a GPU", hint="precision=auto or precision=fp32")
    if wanted != "auto":
        return {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}[wanted]
    if device.type != "cuda":
        return torch.float32
    major = torch.cuda.get_device_capability(device)[0]
    # Ampere (8) has native bf16, Volta and Turing (7) fast fp16, Pascal (6) neither.
    return torch.bfloat16 if major >= 8 else torch.float16 if major == 7 else torch.float32


def _floats(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: tensor.float() for name, tensor in tensors.items()}

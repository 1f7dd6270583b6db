"""One forward and one backward pass on the CPU, small enough to take seconds."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import get_total_norm

from kagflow.errors import KagflowError
from kagflow.frames import own_lines
from kagflow.infer.models import named_outputs
from kagflow.learn.dataset import Sample
from kagflow.learn.look_checks import doubts, judged, returned
from kagflow.learn.look_steps import Ledger, describe
from kagflow.learn.losses import Loss
from kagflow.resolve import Fault

# Seconds that the pass may take, as far as a trial lets foresee.
PATIENCE = 10.0
# More samples than this say no more, and a large encoder takes a gigabyte for each.
MOST = 4
# The trial's window, and the least that a model is shown: encoders stride down by 32.
TRIAL, LEAST = 256, 64


@dataclass
class Pass:
    """What a pass came to; the names of parameters are the model's, and `loss.` the loss's own."""

    loss: float | None = None
    gradient_norm: float | None = None
    parameters: int = 0
    without_gradient: tuple[str, ...] = ()
    frozen: tuple[str, ...] = ()
    notes: list[str] = field(default_factory=list)
    faults: list[Fault] = field(default_factory=list)


def try_step(
    model: nn.Module, loss: Loss, samples: Sequence[Sample], predicts: str, ledger: Ledger
) -> Pass:
    """Show the model a batch, take the loss and its gradients; the first fault ends the pass.

    `samples` are of one shape. As many of them, and as large a window, as fit in a few seconds.
    """
    done = Pass()
    batch = _batch(model, samples, done)
    for name, value in batch.items():
        ledger.add(f"batch {name}", value)
    images = batch.pop("image").contiguous(memory_format=torch.channels_last)
    model.train().to(memory_format=torch.channels_last)
    classes = batch["label"].shape[1]
    try:
        outputs = named_outputs(model(images), predicts)
    except Exception as error:  # noqa: BLE001 - a plug-in may raise anything
        done.faults.append(_raised("model", error, {"images": images}))
        return done
    for name, value in outputs.items():
        if isinstance(value, Tensor):
            ledger.add(f"output {name}", value)
    done.faults += returned(outputs, images, classes)
    done.notes += doubts(outputs)
    if not done.faults:
        _backward(model, loss, outputs, batch, done, ledger)
    return done


def _backward(
    model: nn.Module,
    loss: Loss,
    outputs: dict[str, Tensor],
    target: dict[str, Tensor],
    done: Pass,
    ledger: Ledger,
) -> None:
    try:
        value = loss(outputs, target)
    except Exception as error:  # noqa: BLE001 - as above
        done.faults.append(_raised("loss", error, {"outputs": outputs, "target": target}))
        return
    if isinstance(value, Tensor):
        ledger.add("loss", value)
    done.faults += judged(value)
    if done.faults:
        return
    try:
        value.backward()  # type: ignore[no-untyped-call]
    except Exception as error:  # noqa: BLE001 - as above
        done.faults.append(_raised("loss", error, {"outputs": outputs, "target": target}))
        return
    done.loss = float(value.detach())
    _gradients(model, loss, done)


def _gradients(model: nn.Module, loss: Loss, done: Pass) -> None:
    named = dict(model.named_parameters())
    if isinstance(loss, nn.Module):
        named |= {f"loss.{name}": one for name, one in loss.named_parameters()}
    grads = {name: one.grad for name, one in named.items() if one.grad is not None}
    done.parameters = len(named)
    done.frozen = tuple(name for name, one in named.items() if not one.requires_grad)
    done.without_gradient = tuple(
        name for name, one in named.items() if one.requires_grad and one.grad is None
    )
    done.gradient_norm = float(get_total_norm(list(grads.values())))
    bad = [name for name, grad in grads.items() if not grad.isfinite().all()]
    if bad:
        what = f"the gradients of {len(bad)} parameters are no numbers, the first is {bad[0]}"
        mend = "look for log, sqrt or a division at 0 in the loss or the model"
        done.faults.append(Fault("loss", what, mend))


def _batch(model: nn.Module, samples: Sequence[Sample], done: Pass) -> dict[str, Tensor]:
    """Return as much of the samples as can be shown in time; batch norm needs two of them."""
    image = samples[0]["image"]
    found = _seconds(model.train(), image)
    each = found or 0.0
    count = 2 if found is None else max(2, min(len(samples), int(PATIENCE / max(each, 1e-9)), MOST))
    chosen = samples[:count]
    batch = {key: torch.stack([one[key] for one in chosen]) for key in chosen[0]}
    if count < len(samples):
        done.notes.append(
            f"the model is shown {len(chosen)} of the {len(samples)} samples, for time and memory"
        )
    height, width = image.shape[-2:]
    side = (height, width)
    while each * count * side[0] * side[1] / (height * width) > PATIENCE and max(side) > LEAST:
        side = (side[0], _half(side[1])) if side[1] >= side[0] else (_half(side[0]), side[1])
    if side == (height, width):
        return batch
    done.notes.append(f"the model is shown a window of {side} of {(height, width)}, for time")
    top, left = (height - side[0]) // 2, (width - side[1]) // 2
    window = (..., slice(top, top + side[0]), slice(left, left + side[1]))
    return {key: value if key == "label" else value[window] for key, value in batch.items()}


def _half(side: int) -> int:
    return max(LEAST, side // 2 // 32 * 32)


def _seconds(model: nn.Module, image: Tensor) -> float | None:
    """Estimate a step's seconds for one whole image from one on two small windows.

    None where such a window is refused, as by a model of one size.
    """
    height, width = image.shape[-2:]
    window = torch.stack([image[:, : min(height, TRIAL), : min(width, TRIAL)]] * 2)
    try:
        with torch.no_grad():
            model(window)
        start = time.monotonic()
        found = model(window)
        outputs = found.values() if isinstance(found, Mapping) else [found]
        # The memory that a backward pass needs costs as much as its sums.
        torch.autograd.backward([one.float().mean() for one in outputs])
    except Exception:  # noqa: BLE001 - what is wrong with a model shows in the pass itself
        return None
    finally:
        model.zero_grad(set_to_none=True)
    share = window.shape[-2] * window.shape[-1] / (height * width)
    return (time.monotonic() - start) / 2 / share


def _raised(step: str, error: Exception, given: Mapping[str, Any]) -> Fault:
    if isinstance(error, KagflowError):
        return Fault(step, error.message, error.hint)
    what = (
        f"the {step} raised {type(error).__name__}: {error}\nit was given {describe(dict(given))}"
    )
    return Fault(step, what, "mend the lines shown", own_lines(error))

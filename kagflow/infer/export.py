"""Weights as they ship: fp16 where it is harmless, read back as fp32."""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor, nn

from kagflow.durable import replacing
from kagflow.errors import DataError

_FP16_MAX = torch.finfo(torch.float16).max


def shipped(tensor: Tensor) -> Tensor:
    """Return a tensor as the pack stores it.

    Convolution and linear weights (two axes or more) become fp16; norms, biases, running
    statistics and integers stay, as does a weight that fp16 cannot hold.
    """
    if not tensor.is_floating_point():
        return tensor.contiguous()
    halves = tensor.ndim >= 2 and tensor.numel() > 0 and bool(tensor.abs().max() <= _FP16_MAX)
    return tensor.to(torch.float16 if halves else torch.float32).contiguous()


def export_fp16(source: Path, target: Path) -> None:
    """Write `source` (safetensors) to `target` as it ships, whole or not at all."""
    with replacing(target) as beside:
        beside.write_bytes(save({name: shipped(one) for name, one in _read(source).items()}))


def save_weights(model: nn.Module, target: Path) -> None:
    """Write a model's state to `target` (safetensors), whole or not at all."""
    state = {
        name: tensor.detach().cpu().clone().contiguous()
        for name, tensor in model.state_dict().items()
    }
    # Written by Python: safetensors' own writer tells of a full disk in an error of its own.
    with replacing(target) as beside:
        beside.write_bytes(save(state))


def load_weights(model: nn.Module, path: Path, *, as_shipped: bool = False) -> None:
    """Load `path` (safetensors) into a model as fp32.

    `as_shipped` rounds through fp16 as the pack does, so that a prediction here is the kernel's.
    Raises DataError where the file is damaged or belongs to another model.
    """
    state = _read(path)
    if as_shipped:
        state = {name: shipped(tensor) for name, tensor in state.items()}
    full = {n: t.float() if t.is_floating_point() else t for n, t in state.items()}
    try:
        model.load_state_dict(full)
    except RuntimeError as error:
        raise DataError(
            f"{path.name} does not fit the model: {_misfit(model, full) or error}",
            hint="the recipe's model changed since training, or the file is another run's",
        ) from None


@torch.inference_mode()
def drift(reference: Tensor, other: Tensor) -> float:
    """Return the largest absolute difference between two sets of probabilities."""
    return float((reference.float() - other.float()).abs().max())


def _read(path: Path) -> dict[str, Tensor]:
    try:
        return dict(load_file(path))
    except (SafetensorError, OSError) as error:
        raise DataError(f"{path}: not a readable safetensors file ({error})") from None


def _misfit(model: nn.Module, state: dict[str, Tensor]) -> str:
    """Name the first tensors that are missing, too many, or of another shape."""
    wanted = model.state_dict()
    faults = [f"lacks {name}" for name in wanted if name not in state]
    faults += [f"has {name}, which the model lacks" for name in state if name not in wanted]
    faults += [
        f"{name} is {tuple(state[name].shape)}, not {tuple(tensor.shape)}"
        for name, tensor in wanted.items()
        if name in state and state[name].shape != tensor.shape
    ]
    more = f" and {len(faults) - 3} more" if len(faults) > 3 else ""
    return "; ".join(faults[:3]) + more

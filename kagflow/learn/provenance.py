"""What a run was made from: code, packages, command, data, machine."""

from __future__ import annotations

import hashlib
import importlib.util
import platform
import sys
from collections.abc import Iterable, Iterator, Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

import kagflow
from kagflow import process
from kagflow.errors import LocalError

PACKAGES = (
    "kagflow", "torch", "torchvision", "segmentation-models-pytorch", "timm", "albumentations",
    "numpy", "opencv-python-headless", "safetensors",
)  # fmt: skip


def collect(recipe: Mapping[str, Any], *, data: str, device: str) -> dict[str, Any]:
    """Return the provenance of a run as plain JSON values; `data` is the manifest's hash."""
    return {
        "code": code_hash(recipe),
        "git": _git_commit(),
        "packages": dict(_versions(PACKAGES)),
        "python": platform.python_version(),
        "platform": platform.platform(),
        "command": list(sys.argv),
        "data": data,
        "seed": recipe["seed"],
        "device": device,
    }


def code_hash(recipe: Mapping[str, Any]) -> str:
    """Return the SHA-256 of the sources that shape a model: kagflow's and the recipe's own."""
    package = Path(kagflow.__file__).parent
    files = [
        path
        for room in ("task", "infer", "learn")
        for path in sorted((package / room).glob("*.py"))
    ]
    digest = hashlib.sha256()
    for path in [*files, *sorted(_plugin_files(recipe))]:
        digest.update(path.name.encode() + b"\0" + path.read_bytes() + b"\0")
    return digest.hexdigest()


def _plugin_files(recipe: Mapping[str, Any]) -> set[Path]:
    modules = {target.partition(":")[0] for target in _targets(recipe) if ":" in target}
    specs = [importlib.util.find_spec(module) for module in modules]
    origins = [Path(spec.origin) for spec in specs if spec is not None and spec.origin]
    return {path for path in origins if path.suffix == ".py" and path.is_file()}


def _targets(recipe: Mapping[str, Any]) -> Iterator[str]:
    for value in recipe.values():
        if isinstance(value, Mapping) and isinstance(value.get("target"), str):
            yield value["target"]


def _versions(names: Iterable[str]) -> Iterator[tuple[str, str]]:
    for name in names:
        try:
            yield name, metadata.version(name)
        except metadata.PackageNotFoundError:
            continue


def _git_commit() -> str | None:
    try:
        done = process.run(
            ["git", "rev-parse", "HEAD"], cwd=Path(kagflow.__file__).parent, check=False, timeout=10
        )
    except LocalError:
        return None
    return done.stdout.strip() if done.returncode == 0 else None

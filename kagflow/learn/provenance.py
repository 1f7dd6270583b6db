"""What a run was made from: code, packages, command, data, machine."""

from __future__ import annotations

import hashlib
import platform
import sys
from collections.abc import Iterable, Iterator, Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

import kagflow
from kagflow import durable, process
from kagflow.errors import LocalError
from kagflow.learn import plugins

PACKAGES = (
    "kagflow", "torch", "torchvision", "segmentation-models-pytorch", "timm", "albumentations",
    "numpy", "opencv-python-headless", "safetensors",
)  # fmt: skip


def collect(recipe: Mapping[str, Any], *, data: str, device: str) -> dict[str, Any]:
    """Return the provenance of a run as plain JSON values; `data` is the manifest's hash."""
    return {
        "code": digest(code_files(recipe)),
        "git": _git_commit(),
        "packages": dict(_versions(PACKAGES)),
        "python": platform.python_version(),
        "platform": platform.platform(),
        "command": list(sys.argv),
        "data": data,
        "weights": _file_hash(recipe["weights"]),
        "seed": recipe["seed"],
        "device": device,
    }


def _file_hash(weights: str) -> str | None:
    return durable.sha256_file(Path(weights)) if Path(weights).is_file() else None


def code_files(recipe: Mapping[str, Any]) -> dict[str, str]:
    """Return the SHA-256 of each source that shapes a model: kagflow's and the recipe's own."""
    package = Path(kagflow.__file__).parent
    ours = (path for room in ("task", "infer", "learn") for path in (package / room).glob("*.py"))
    named = {f"kagflow/{path.relative_to(package).as_posix()}": path for path in ours}
    named |= plugins.files(recipe)
    return {name: durable.sha256_file(path) for name, path in sorted(named.items())}


def digest(files: Mapping[str, str]) -> str:
    """Return one SHA-256 of `code_files`."""
    lines = "".join(f"{name} {files[name]}\n" for name in sorted(files))
    return hashlib.sha256(lines.encode()).hexdigest()


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

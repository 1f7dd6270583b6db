"""Write the kernel that runs a pack: one script of the standard library and its metadata.

A script by default: only a script that fails is called failed by Kaggle. A notebook holds the same
code in one cell.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kagflow import durable
from kagflow.errors import UsageError
from kagflow.ship import notebook
from kagflow.ship.pack import CONFIG, read_pack
from kagflow.ship.render import render

SCRIPT = "kernel.py"
NOTEBOOK = "kernel.ipynb"
METADATA = "kernel-metadata.json"
# Kaggle takes at most 1 MiB of source.
MAX_BYTES = 1 << 20
# As the API writes a session without an accelerator.
NO_ACCELERATOR = "None"
# Where the competition's limits are not told: what most code competitions give.
UNKNOWN_MINUTES, UNKNOWN_GB = 540.0, 29.0


@dataclass(frozen=True)
class KernelSpec:
    """Say where a kernel goes and what it mounts; `datasets` read owner/slug/version."""

    owner: str
    slug: str
    title: str
    competition_slug: str
    datasets: tuple[str, ...]
    accelerator: str
    timeout_s: int
    notebook: bool = False

    @property
    def is_gpu(self) -> bool:
        """Tell whether the accelerator is one that CUDA computes on."""
        return self.accelerator not in ("", NO_ACCELERATOR) and not self.is_tpu

    @property
    def is_tpu(self) -> bool:
        """Tell whether the accelerator is a TPU."""
        return self.accelerator.lower().startswith("tpu")

    @property
    def file(self) -> str:
        """The name of the file that is pushed."""
        return NOTEBOOK if self.notebook else SCRIPT


@dataclass(frozen=True)
class Kernel:
    """Name a written kernel; `timeout_s` goes with the push, the metadata has no place for it."""

    folder: Path
    metadata: dict[str, Any]
    timeout_s: int

    @property
    def script(self) -> Path:
        """The script or notebook that is pushed."""
        return self.folder / str(self.metadata["code_file"])


def render_kernel(pack: Path, target: Path, spec: KernelSpec) -> Kernel:
    """Write kernel.py or .ipynb and kernel-metadata.json for a checked pack into `target`.

    Raises UsageError where Kaggle would silently take another name or another data version.
    """
    _check(spec)
    made = read_pack(pack)
    config = json.loads((made.weights.path / CONFIG).read_text())
    limits = config.get("limits") or {}
    values = {
        "pack": made.hash,
        "parts": {part.name: part.hash for part in made.parts},
        "python": made.env.manifest["python"],
        "competition": spec.competition_slug,
        "gpu": spec.accelerator if spec.is_gpu else "",
        "task": task_facts(config["task"]),
        "minutes": float(limits.get("inference_minutes") or UNKNOWN_MINUTES),
        "memory_gb": float(limits.get("memory_gb") or UNKNOWN_GB),
    }
    text = render(f"kernel/{SCRIPT}.j2", values)
    if spec.notebook:
        text = notebook.wrap(spec.title, text)
    if len(text.encode()) >= MAX_BYTES:
        raise UsageError(f"the kernel has {len(text)} characters, Kaggle takes 1 MiB")
    metadata = {**kernel_metadata(spec), **_pinned(made.env.manifest)}
    durable.write_text(target / spec.file, text)
    durable.write_json(target / METADATA, metadata)
    return Kernel(target, metadata, spec.timeout_s)


def kernel_metadata(spec: KernelSpec) -> dict[str, Any]:
    """Return kernel-metadata.json; nothing is left to the server's defaults.

    Unsaid, the client turns the internet on and the server picks a retired accelerator.
    """
    accelerator = spec.accelerator or NO_ACCELERATOR
    return {
        "id": f"{spec.owner}/{spec.slug}",
        "title": spec.title,
        "code_file": spec.file,
        "language": "python",
        "kernel_type": "notebook" if spec.notebook else "script",
        "is_private": True,
        "enable_gpu": spec.is_gpu,
        "enable_tpu": spec.is_tpu,
        "enable_internet": False,
        "machine_shape": accelerator,
        "dataset_sources": list(spec.datasets),
        "competition_sources": [spec.competition_slug],
        "kernel_sources": [],
        "model_sources": [],
        "keywords": [],
    }


def _pinned(manifest: Mapping[str, Any]) -> dict[str, str]:
    """Return what pins the image: only one that a probe has seen is named to Kaggle."""
    digest = manifest.get("digest")
    return {"docker_image": digest, "docker_image_pinning_type": "original"} if digest else {}


def task_facts(task: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a kernel must know of a task, to find and to check its tables."""
    names = ("kind", "image_column", "class_column", "value_column", "test_images")
    facts = {name: task[name] for name in names}
    return {
        **facts,
        "sample_submission": task["sample_submission"],
        "classes": list(task["classes"]),
    }


def _check(spec: KernelSpec) -> None:
    if re.sub(r"[^a-z0-9]+", "-", spec.title.lower()).strip("-") != spec.slug:
        raise UsageError(
            f"the title '{spec.title}' does not read '{spec.slug}' as a slug, "
            "and Kaggle names a kernel after its title",
            hint="change the title or the slug",
        )
    for what, text in (("title", spec.title), ("slug", spec.slug)):
        if not 5 <= len(text) <= 50:
            raise UsageError(f"a kernel's {what} has 5 to 50 letters: '{text}'")
    loose = [name for name in spec.datasets if not re.fullmatch(r"[^/]+/[^/]+/\d+", name)]
    if loose:
        raise UsageError(
            f"dataset '{loose[0]}' is not pinned to a version", hint=f"write {loose[0]}/<version>"
        )
    if spec.timeout_s <= 0:
        raise UsageError(f"a session can't end after {spec.timeout_s} s")

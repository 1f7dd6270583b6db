"""Make the whole wheel of kagflow from its installed files: what trains on another machine."""

from __future__ import annotations

import importlib.metadata
from collections.abc import Iterator
from email.parser import Parser
from pathlib import Path

from packaging.requirements import Requirement

import kagflow
from kagflow import resources
from kagflow.errors import DataError
from kagflow.fingerprint import normalise
from kagflow.ship import runtime, wheelfile

NAME = "kagflow"
# What `kagflow train` imports of kagflow's own requirements, by distribution.
TRAINS = (
    "albumentations",
    "filelock",
    "numpy",
    "opencv-python-headless",
    "packaging",
    "pandas",
    "pillow",
    "platformdirs",
    "pydantic",
    "pyyaml",
    "rich",
    "safetensors",
    "scipy",
    "segmentation-models-pytorch",
    "timm",
    "torch",
    "torchvision",
    "typer",
)


def requirements() -> tuple[str, ...]:
    """List what training needs, in kagflow's own ranges, the model code pinned (PEP 508)."""
    declared = {
        normalise(one.name): str(one)
        for one in map(Requirement, importlib.metadata.requires(NAME) or [])
        if one.marker is None
    }
    pins = {name: f"{name}=={importlib.metadata.version(name)}" for name in runtime.PINNED}
    return tuple(({name: declared[name] for name in TRAINS} | pins).values())


def build_whole(folder: Path) -> Path:
    """Write `kagflow-<version>-py3-none-any.whl` into `folder`, the same bytes each time.

    The sources are the installed ones, templates and shipped competitions with them. Raises
    DataError where a file is a link.
    """
    version = kagflow.__version__
    info = f"{NAME}-{version}.dist-info"
    files = {f"{NAME}/{path}": file.read_bytes() for path, file in _sources()}
    files[f"{info}/METADATA"] = _metadata(version)
    files[f"{info}/entry_points.txt"] = b"[console_scripts]\nkagflow = kagflow.cli.app:main\n"
    lines = ["Wheel-Version: 1.0", f"Generator: kagflow {version}", "Root-Is-Purelib: true"]
    wheel = [*lines, f"Tag: {runtime.TAG}", ""]
    files[f"{info}/WHEEL"] = "\n".join(wheel).encode()
    return wheelfile.write_wheel(folder, name=NAME, version=version, tag=runtime.TAG, files=files)


def _metadata(version: str) -> bytes:
    """Return the part of the installed METADATA that does not depend on what built it."""
    told = Parser().parsestr(importlib.metadata.distribution(NAME).read_text("METADATA") or "")
    kept = ("Summary", "Requires-Python", "Provides-Extra", "Requires-Dist")
    lines = [f"{key}: {value}" for key in kept for value in told.get_all(key, [])]
    return "\n".join(
        ["Metadata-Version: 2.1", f"Name: {NAME}", f"Version: {version}", *lines, ""]
    ).encode()


def _sources() -> Iterator[tuple[str, Path]]:
    home = Path(kagflow.__file__).parent
    roots = {
        "": home,
        "templates/": resources.templates(),
        "competitions/": resources.competitions(),
    }
    for prefix, root in roots.items():
        for path in sorted(root.rglob("*")):
            inside = path.relative_to(root)
            hidden = any(one.startswith(".") or one == "__pycache__" for one in inside.parts)
            # An installed wheel has both folders inside: they come by their own name.
            again = not prefix and inside.parts[0] in ("templates", "competitions")
            if hidden or again or path.is_dir():
                continue
            if path.is_symlink():
                raise DataError(f"{path} is a link: links do not travel", hint="copy the file")
            yield f"{prefix}{inside.as_posix()}", path

"""Make the slim wheel of what the kernel runs: task, infer, their core, the competition folder."""

from __future__ import annotations

import importlib.metadata
import sys
from collections.abc import Iterator
from pathlib import Path

from packaging.requirements import Requirement

import kagflow
from kagflow.errors import DataError
from kagflow.fingerprint import normalise
from kagflow.ship import wheelfile

NAME = "kagflow_runtime"
TAG = "py3-none-any"
# What the travelling rooms import from the core.
CORE = ("__init__.py", "durable.py", "errors.py", "progress.py", "resolve.py", "shards.py")
ROOMS = ("task", "infer")
# What the travelling rooms import from elsewhere, by distribution.
IMPORTED = (
    "numpy",
    "opencv-python-headless",
    "pandas",
    "safetensors",
    "segmentation-models-pytorch",
    "timm",
    "torch",
)
# Weights are trained against one version of the model code: the very same one travels.
PINNED = ("segmentation-models-pytorch",)
_SUFFIXES = frozenset({".py", ".yaml", ".yml"})


def requirements() -> tuple[str, ...]:
    """List what the runtime needs, in kagflow's own ranges, the model code pinned (PEP 508)."""
    declared = {
        normalise(requirement.name): requirement
        for requirement in map(Requirement, importlib.metadata.requires("kagflow") or [])
        if requirement.marker is None
    }
    ranges = {name: str(declared.get(name, name)) for name in IMPORTED}
    pins = {name: f"{name}=={importlib.metadata.version(name)}" for name in PINNED}
    return tuple({**ranges, **pins}.values())


def build_runtime(competition_folder: Path, folder: Path) -> Path:
    """Write `kagflow_runtime-<version>-py3-none-any.whl` into `folder`, the same bytes each time.

    Inside, the packages are `kagflow` and the competition folder under its own name.
    Raises DataError where that name can't be a package's or a file of it is a link.
    """
    version = kagflow.__version__
    info = f"{NAME}-{version}.dist-info"
    files = runtime_files(competition_folder)
    metadata = [
        "Metadata-Version: 2.1",
        f"Name: {NAME}",
        f"Version: {version}",
        "Summary: What a kagflow kernel runs",
        *(f"Requires-Dist: {text}" for text in requirements()),
    ]
    wheel = ["Wheel-Version: 1.0", f"Generator: kagflow {version}", "Root-Is-Purelib: true"]
    files[f"{info}/METADATA"] = _lines(metadata)
    files[f"{info}/WHEEL"] = _lines([*wheel, f"Tag: {TAG}"])
    return wheelfile.write_wheel(folder, name=NAME, version=version, tag=TAG, files=files)


def runtime_files(competition_folder: Path) -> dict[str, bytes]:
    """Return the archive paths and bytes of the travelling code: Python and YAML only."""
    home = Path(kagflow.__file__).parent
    _check_name(competition_folder)
    sources = [home / name for name in CORE]
    for room in ROOMS:
        sources += code_of(home / room)
    files = {f"kagflow/{path.relative_to(home).as_posix()}": path.read_bytes() for path in sources}
    for path in code_of(competition_folder):
        inside = path.relative_to(competition_folder).as_posix()
        files[f"{competition_folder.name}/{inside}"] = path.read_bytes()
    return dict(sorted(files.items()))


def _check_name(folder: Path) -> None:
    name = folder.name
    if not (folder / "competition.yaml").is_file():
        raise DataError(f"{folder} holds no competition.yaml", hint="kagflow init <name>")
    if not name.isidentifier() or name == "kagflow" or name in sys.stdlib_module_names:
        raise DataError(
            f"the competition folder '{name}' travels as a Python package of that name",
            hint=f"rename {folder} to an unused identifier such as my_{name.replace('-', '_')}",
        )


def code_of(folder: Path) -> Iterator[Path]:
    """Yield the Python and YAML files of a folder; raises DataError where one is a link."""
    for path in sorted(folder.rglob("*")):
        inside = path.relative_to(folder)
        if path.suffix not in _SUFFIXES or any(
            part.startswith(".") or part == "__pycache__" for part in inside.parts
        ):
            continue
        # A link could carry in what lies outside the folder.
        if path.is_symlink():
            raise DataError(f"{path} is a link: links do not travel", hint="copy the file instead")
        if path.is_file():
            yield path


def _lines(lines: list[str]) -> bytes:
    return ("\n".join(lines) + "\n").encode()

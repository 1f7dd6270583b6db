"""What this machine has for kagflow: Python, torch, a GPU, disk and a file system that keeps word.

Quick on purpose: versions come from metadata and the GPU from its driver's tool, so that nothing
heavy is imported; `torch_imports` is the one that does.
"""

from __future__ import annotations

import contextlib
import fcntl
import importlib.metadata
import os
import re
import shutil
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from kagflow import process
from kagflow.errors import KagflowError, LocalError

State = Literal["ok", "warn", "fail", "unknown"]
PYTHON = (3, 11)  # the oldest that kagflow runs on
TIGHT, LITTLE = 20 << 30, 2 << 30  # free bytes below which a road is doubtful, and hopeless
SMI_SECONDS = 1.5
# Compute capabilities that PyTorch's own builds hold code for, lowest and highest, by CUDA: the
# support matrix of pytorch/RELEASE.md, 2.10 to 2.14. A GPU runs what was compiled for a lower minor
# of its major version.
CAPABILITIES: dict[str, tuple[float, float]] = {
    "12.6": (5.0, 9.0),
    "12.8": (7.5, 12.1),
    "13.0": (7.5, 12.1),
    "13.2": (7.5, 12.1),
}
# pytorch/pytorch#172352: Volta left the build for 12.8 after 2.10.
VOLTA_IN_128 = "2.10."
# Builds to name, newest first; from 2.15 none is published for CUDA 12 (pytorch/pytorch#190385).
BUILDS = (("13.0", "torch's cu130 build"), ("12.6", "a torch older than 2.15, in its cu126 build"))


@dataclass(frozen=True)
class Check:
    """Say what was looked at and found; `mend` names the way out, `code` the exit code it earns."""

    name: str
    state: State
    found: str
    mend: str = ""
    code: int = LocalError.exit_code


@dataclass(frozen=True)
class Gpu:
    """Describe one GPU by its driver's own words; memory in MiB."""

    name: str
    capability: float
    memory_mib: int


def judged(name: str, look: Callable[[], Check]) -> Check:
    """Return what `look` finds; a KagflowError becomes a failure with its hint and exit code."""
    try:
        return look()
    except KagflowError as error:
        return Check(name, "fail", error.message, error.hint, error.exit_code)


def python_check() -> Check:
    """Compare the running Python with the oldest that is supported."""
    found = ".".join(map(str, sys.version_info[:3]))
    if sys.version_info[:2] >= PYTHON:
        return Check("python", "ok", found)
    wanted = ".".join(map(str, PYTHON))
    return Check("python", "fail", found, f"install Python {wanted} or newer, and kagflow in it")


def torch_cuda() -> tuple[str, str | None] | None:
    """Return torch's version and the CUDA it was built for, None without torch; imports nothing."""
    try:
        found = importlib.metadata.distribution("torch")
    except importlib.metadata.PackageNotFoundError:
        return None
    text = ""
    with contextlib.suppress(OSError):
        text = Path(str(found.locate_file("torch/version.py"))).read_text()
    cuda = re.search(r"^cuda\b[^=]*=\s*'([\d.]+)'", text, re.MULTILINE)
    return found.version, cuda[1] if cuda else None


def gpus() -> list[Gpu]:
    """Return the GPUs that the driver's tool lists; none where there is no such tool.

    Raises LocalError where the tool is there and fails.
    """
    if shutil.which("nvidia-smi") is None:
        return []
    query = "--query-gpu=name,compute_cap,memory.total"
    done = process.run(
        ["nvidia-smi", query, "--format=csv,noheader,nounits"], timeout=SMI_SECONDS, check=False
    )
    if done.returncode:
        tail = (done.stderr or done.stdout).strip().splitlines()[-1:]
        raise LocalError(
            f"nvidia-smi fails: {''.join(tail)}", hint="reinstall the driver, or restart"
        )
    return [_gpu(line) for line in done.stdout.splitlines() if line.count(",") >= 2]


def _gpu(line: str) -> Gpu:
    name, capability, memory = (cell.strip() for cell in line.rsplit(",", 2))
    known = re.fullmatch(r"\d+\.\d+", capability) is not None
    return Gpu(name, float(capability) if known else 0.0, int(memory) if memory.isdigit() else 0)


def torch_check() -> Check:
    """Name the installed torch and what it was built for."""
    found = torch_cuda()
    if found is None:
        return Check("torch", "fail", "not installed", "pip install torch torchvision")
    version, cuda = found
    return Check("torch", "ok", f"{version}, {f'CUDA {cuda}' if cuda else 'CPU only'}")


def gpu_check() -> Check:
    """Compare each GPU's compute capability with what the installed torch was compiled for."""
    found = gpus()
    if not found:
        return Check("gpu", "ok", "none: trains on the CPU, which suits small recipes only")
    shown = "; ".join(f"{one.name} ({one.capability}, {one.memory_mib} MiB)" for one in found)
    torch = torch_cuda()
    if torch is None:
        return Check("gpu", "unknown", f"{shown}; no torch to compare with")
    version, cuda = torch
    if cuda is None:
        mend = f"install {build_for(found)}: this one is for CPUs"
        return Check("gpu", "warn", f"{shown}; torch {version} can't use it", mend)
    unfit = [one for one in found if not fits(one.capability, cuda, version)]
    if unfit:
        text = f"{shown}; torch {version} has no code for capability {unfit[0].capability}"
        return Check("gpu", "fail", text, f"install {build_for(found)}")
    return Check("gpu", "ok", shown)


def fits(capability: float, cuda: str, version: str = "") -> bool:
    """Tell whether a build for `cuda` runs on a capability; unknown numbers are given the doubt."""
    short = ".".join(cuda.split(".")[:2])
    known = CAPABILITIES.get(short)
    if not capability or known is None:
        return True
    if short == "12.8" and version.startswith(VOLTA_IN_128):
        known = (7.0, known[1])
    return known[0] <= capability <= known[1]


def build_for(found: list[Gpu]) -> str:
    """Name a build that holds code for all of these GPUs."""
    for cuda, name in BUILDS:
        if all(fits(one.capability, cuda) for one in found):
            return name
    return "a build for the newer of these GPUs, and hide the others by CUDA_VISIBLE_DEVICES"


def disk_check(folder: Path) -> Check:
    """Look at the free space where the workspace lies."""
    free = shutil.disk_usage(_existing(folder)).free
    text = f"{free / 2**30:.1f} GiB free at {folder}"
    if free < LITTLE:
        return Check("disk", "fail", text, "free some space, or move the workspace")
    state: State = "warn" if free < TIGHT else "ok"
    return Check("disk", state, text, "a fetch needs its data 2.2 times" if state == "warn" else "")


def file_system_check(folder: Path) -> Check:
    """Try what durable files rely on: a rename that replaces, locks that hold, case."""
    folder = _existing(folder)
    try:
        with tempfile.TemporaryDirectory(prefix=".kagflow-doctor-", dir=folder) as made:
            wrong = _wrong(Path(made))
    except OSError as error:
        return Check(
            "file system", "fail", f"{folder}: {error.strerror or error}", "make it writable"
        )
    if "rename" in wrong:
        text = f"{folder}: a rename does not replace a file"
        return Check("file system", "fail", text, "move the workspace to a local disk")
    if wrong:
        text = f"{folder}: {', '.join(wrong)}"
        return Check("file system", "warn", text, "a local disk is safer")
    return Check("file system", "ok", "renames replace, locks hold, case is kept")


def _wrong(folder: Path) -> list[str]:
    found = []
    old, new = folder / "old", folder / "new"
    old.write_text("old")
    new.write_text("new")
    new.replace(old)
    if old.read_text() != "new" or new.exists():
        found.append("rename")
    if not _locks_hold(folder / "lock"):
        found.append("locks don't hold")
    if (folder / "OLD").exists():
        found.append("upper and lower case are the same")
    return found


def _locks_hold(path: Path) -> bool:
    first, second = (os.open(path, os.O_RDWR | os.O_CREAT) for _ in range(2))
    try:
        fcntl.flock(first, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return _refused(second)
    except OSError:
        return False
    finally:
        os.close(first)
        os.close(second)


def _refused(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    return False


def torch_imports() -> Check:
    """Import torch in a process of its own and ask it to compute on what it finds."""
    script = (
        "import torch; g = torch.cuda.is_available(); "
        "x = torch.ones(8, device='cuda' if g else 'cpu'); assert float((x + x).sum()) == 16; "
        "print(torch.__version__, torch.cuda.get_device_name(0) if g else 'CPU', "
        "*(torch.cuda.get_arch_list() if g else []))"
    )
    done = process.run([sys.executable, "-c", script], timeout=120, check=False)
    if done.returncode:
        last = (done.stderr.strip() or "no word").splitlines()[-1]
        return Check("torch computes", "fail", last, "install a build that fits: kagflow doctor")
    return Check("torch computes", "ok", done.stdout.strip())


def _existing(folder: Path) -> Path:
    return next(one for one in (folder, *folder.parents) if one.is_dir())

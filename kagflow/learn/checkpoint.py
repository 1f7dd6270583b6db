"""Everything an exact resume needs, written so that a kill at any moment loses no older state."""

from __future__ import annotations

import hashlib
import io
import json
import random
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from kagflow import durable
from kagflow.errors import LocalError

KEPT = 2


@dataclass(frozen=True)
class Found:
    """A checkpoint that verified; `skipped` names newer ones that did not."""

    state: dict[str, Any]
    step: int
    skipped: tuple[str, ...]


def save(folder: Path, state: Mapping[str, Any], *, step: int, epoch: int) -> Path:
    """Write ckpt-<step>.pt, then its sidecar with the SHA-256; drop all but the newest two.

    Raises LocalError where the disk is full; older checkpoints stay as they are.
    """
    buffer = io.BytesIO()
    torch.save(dict(state), buffer)
    data = buffer.getvalue()
    path = folder / f"ckpt-{step}.pt"
    try:
        durable.write_bytes(path, data)
        sidecar = {"sha256": hashlib.sha256(data).hexdigest(), "step": step, "epoch": epoch}
        durable.write_json(path.with_suffix(".json"), sidecar)
    except OSError as error:
        raise LocalError(
            f"cannot write {path}: {error.strerror or error}",
            hint="free disk space; the same command goes on from the checkpoint before",
        ) from error
    for old in _by_age(folder)[KEPT:]:
        # The sidecar goes first: weights without one are never taken for a checkpoint.
        old.unlink(missing_ok=True)
        old.with_suffix(".pt").unlink(missing_ok=True)
    return path


def newest(folder: Path) -> Found | None:
    """Return the newest checkpoint whose bytes match their sidecar, None where there is none."""
    skipped: list[str] = []
    for sidecar in _by_age(folder):
        state = _read(sidecar)
        if state is not None:
            return Found(state, _step(sidecar), tuple(skipped))
        skipped.append(sidecar.with_suffix(".pt").name)
    return None


def seed_all(seed: int) -> None:
    """Start every global generator from `seed`; samplers and augmentation have their own."""
    torch.manual_seed(seed)
    np.random.seed(seed)  # noqa: NPY002 - plug-ins may draw from it
    random.seed(seed)


def random_state() -> dict[str, Any]:
    """Return the state of every global generator as tensors and plain values."""
    name, keys, *rest = np.random.get_state(legacy=True)  # noqa: NPY002 - plug-ins may draw from it
    return {
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
        "numpy": [name, torch.from_numpy(np.asarray(keys).astype(np.int64)), *rest],
        "python": random.getstate(),
    }


def set_random_state(state: Mapping[str, Any]) -> None:
    """Put every global generator back to what `random_state` returned."""
    torch.set_rng_state(state["torch"])
    if state["cuda"] and torch.cuda.is_available():
        torch.cuda.set_rng_state_all(state["cuda"])
    name, keys, *rest = state["numpy"]
    np.random.set_state((name, keys.numpy().astype(np.uint32), *rest))  # noqa: NPY002
    random.setstate(state["python"])


def _by_age(folder: Path) -> list[Path]:
    return sorted(folder.glob("ckpt-*.json"), key=_step, reverse=True)


def _step(sidecar: Path) -> int:
    return int(sidecar.stem.removeprefix("ckpt-"))


def _read(sidecar: Path) -> dict[str, Any] | None:
    try:
        wanted = json.loads(sidecar.read_text())["sha256"]
        data = sidecar.with_suffix(".pt").read_bytes()
    except (OSError, ValueError, KeyError):
        return None
    if hashlib.sha256(data).hexdigest() != wanted:
        return None
    state: dict[str, Any] = torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
    return state

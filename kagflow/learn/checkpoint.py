"""Everything an exact resume needs, written so that a kill at any moment loses no older state."""

from __future__ import annotations

import errno
import hashlib
import io
import json
import random
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, cast

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
    for left in folder.glob(".*.tmp"):
        # What a kill left half-written; this process alone writes here.
        left.unlink(missing_ok=True)
    path = folder / f"ckpt-{step}.pt"
    with telling_a_full_disk(path):
        with durable.replacing(path) as beside, beside.open("wb") as file:
            writer = _Hashing(file)
            writer.take(state)
        sidecar = {"sha256": writer.digest.hexdigest(), "step": step, "epoch": epoch}
        durable.write_json(path.with_suffix(".json"), sidecar)
    for old in _by_age(folder)[KEPT:]:
        # The sidecar goes first: weights without one are never taken for a checkpoint.
        old.unlink(missing_ok=True)
        old.with_suffix(".pt").unlink(missing_ok=True)
    return path


class _Hashing:
    """Write and hash at once: a state of gigabytes is never held twice."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._fault: OSError | None = None
        self.digest = hashlib.sha256()

    def take(self, state: Mapping[str, Any]) -> None:
        """Write a state; an OSError stays one, which torch makes a RuntimeError of."""
        try:
            torch.save(dict(state), cast(BinaryIO, self))
            self._file.flush()
        except RuntimeError:
            if self._fault is None:
                raise
            raise self._fault from None

    def write(self, data: bytes) -> int:
        try:
            written = self._file.write(data)
        except OSError as error:
            self._fault = error
            raise
        self.digest.update(data)
        return written

    def flush(self) -> None:
        pass


@contextmanager
def telling_a_full_disk(path: Path) -> Iterator[None]:
    """Make LocalError of what the file system says against writing `path`."""
    try:
        yield
    except OSError as error:
        full = error.errno == errno.ENOSPC
        raise LocalError(
            f"cannot write {path}: {'the disk is full' if full else error.strerror or error}",
            hint="free disk space; the same command goes on from the checkpoint before",
        ) from error


def epochs(folder: Path) -> list[int]:
    """Return how many epochs were done at each checkpoint that is there."""
    found = []
    for sidecar in _by_age(folder):
        with suppress(OSError, ValueError, KeyError):
            found.append(int(json.loads(sidecar.read_text())["epoch"]))
    return found


def steps(folder: Path) -> list[int]:
    """Return the step of each checkpoint that is there, the newest first, none of them read."""
    return [_step(sidecar) for sidecar in _by_age(folder)]


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
        # That of the device in use: to ask another would take memory there.
        "cuda": [torch.cuda.get_rng_state()] if _on_gpu() else [],
        "numpy": [name, torch.from_numpy(np.asarray(keys).astype(np.int64)), *rest],
        "python": random.getstate(),
    }


def set_random_state(state: Mapping[str, Any]) -> None:
    """Put every global generator back to what `random_state` returned."""
    torch.set_rng_state(state["torch"])
    if state["cuda"] and torch.cuda.is_available():
        torch.cuda.set_rng_state(state["cuda"][0])
    name, keys, *rest = state["numpy"]
    np.random.set_state((name, keys.numpy().astype(np.uint32), *rest))  # noqa: NPY002
    random.setstate(state["python"])


def _on_gpu() -> bool:
    return bool(torch.cuda.is_initialized())  # type: ignore[no-untyped-call]


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

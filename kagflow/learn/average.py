"""The best epochs' weights, kept as files beside the checkpoints and averaged at the end."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from safetensors.torch import load_file
from torch import Tensor, nn

from kagflow import durable
from kagflow.infer.export import save_weights
from kagflow.learn import checkpoint


def best(history: Sequence[Mapping[str, Any]], count: int) -> set[int]:
    """Return the `count` epochs of the highest `val_score`; of equal ones, the later."""
    scored = sorted((line.get("val_score", 0.0), line["epoch"]) for line in history)
    return {epoch for _, epoch in scored[len(scored) - count :]} if count else set()


def since_better(history: Sequence[Mapping[str, Any]]) -> int:
    """Return how many epochs have passed since one was better than all before it."""
    scores = [line.get("val_score", 0.0) for line in history]
    return len(scores) - 1 - scores.index(max(scores)) if scores else 0


def keep(folder: Path, model: nn.Module, epoch: int) -> None:
    """Write an epoch's weights, then their sidecar with the SHA-256."""
    path = folder / f"epoch-{epoch}.safetensors"
    with checkpoint.telling_a_full_disk(path):
        save_weights(model, path)
        durable.write_json(path.with_suffix(".json"), {"sha256": durable.sha256_file(path)})


def prune(folder: Path, history: Sequence[Mapping[str, Any]], count: int) -> None:
    """Drop what neither the last state nor a checkpoint on disk counts among its best epochs."""
    lengths = [len(history), *checkpoint.epochs(folder)]
    wanted = set().union(*(best(history[:length], count) for length in lengths))
    for sidecar in folder.glob("epoch-*.json"):
        if int(sidecar.stem.removeprefix("epoch-")) not in wanted:
            # The sidecar goes first: weights without one are never taken.
            sidecar.unlink(missing_ok=True)
            sidecar.with_suffix(".safetensors").unlink(missing_ok=True)


def load_mean(folder: Path, epochs: set[int], model: nn.Module) -> list[int]:
    """Give `model` the mean of the kept weights of `epochs`; return those that verified.

    Batch norm's statistics are averaged like weights, as timm's avg_checkpoints does: late epochs
    of one run lie in one basin, and re-estimating would need a pass over crops that are augmented.
    Sums are in float64; integers are the last epoch's. With none that verifies nothing changes.
    """
    paths = {epoch: folder / f"epoch-{epoch}.safetensors" for epoch in sorted(epochs)}
    whole = [epoch for epoch, path in paths.items() if _verifies(path)]
    total: dict[str, Tensor] = {}
    for epoch in whole:
        for name, value in load_file(paths[epoch]).items():
            share = value.double() / len(whole) if value.is_floating_point() else value
            total[name] = total[name] + share if name in total and share is not value else share
    if whole:
        model.load_state_dict(total)
    return whole


def _verifies(path: Path) -> bool:
    try:
        wanted = json.loads(path.with_suffix(".json").read_text())["sha256"]
        return bool(durable.sha256_file(path) == wanted)
    except (OSError, ValueError, KeyError):
        return False

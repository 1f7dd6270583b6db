"""How fast a recipe runs here: as an earlier run measured it, or tried out on a few images."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

# What a run's speed and memory depend on, beside the machine.
KEYS = (
    "predicts", "model", "input", "size", "crop", "loss", "augment", "batch", "accumulate",
    "precision", "compile", "workers", "tta",
)  # fmt: skip


@dataclass(frozen=True)
class Speed:
    """Seconds and bytes of one recipe on one machine; None for what was not measured.

    `image` is of training on one image, data included, `glance` of looking at held-out images
    after an epoch, `predict` and `oof` of predicting one at the end, `decode` of decoding one.
    `memory` is the device's at most, `checkpoint` and `weights` are files. `source` says where
    the figures are from; `changes` are the recipe's keys that would not fit the device as they are.
    """

    source: str
    image: float
    glance: float
    predict: float | None
    decode: float | None
    memory: int | None
    checkpoint: int
    weights: int
    oof: float | None
    changes: Mapping[str, Any]


def speed_key(recipe: Mapping[str, Any], processes: int) -> str:
    """Return what two recipes have in common that run at the same speed."""
    facts = {key: recipe.get(key) for key in KEYS} | {"processes": processes}
    facts |= {"ema": bool(recipe["ema"]), "optimiser": recipe["optimiser"]["target"]}
    return json.dumps(facts, sort_keys=True)


def earlier_speed(
    runs: Path, recipe: Mapping[str, Any], *, on: str, processes: int
) -> Speed | None:
    """Return what the newest finished run of such a recipe measured on machine `on`, if any did."""
    key, newest = speed_key(recipe, processes), list[tuple[float, Path]]()
    for file in runs.glob("*/*/run.json"):
        run = json.loads(file.read_text())
        same = run.get("machine") == on and run.get("steps")
        if same and speed_key(run["recipe"], run.get("processes", 1)) == key:
            newest.append((file.stat().st_mtime, file.parent))
    return _measured(max(newest)[1]) if newest else None


def _measured(folder: Path) -> Speed:
    run = json.loads((folder / "run.json").read_text())
    recipe = run["recipe"] | run["resolved"]
    epochs = len((folder / "metrics.jsonl").read_text().splitlines())
    predicted = run["seconds_per_image"]
    oof = _size(folder / "oof") / max(run["images"], 1)
    return Speed(
        source=f"{folder.parent.name} {folder.name}, finished",
        image=run["seconds"] / (run["steps"] * recipe["batch"] * recipe["accumulate"]),
        glance=run["time"]["glance"] / max(epochs, 1),
        predict=predicted,
        decode=None,
        memory=run["memory"],
        checkpoint=max((file.stat().st_size for file in folder.glob("ckpt-*.pt")), default=0),
        weights=(folder / "best.safetensors").stat().st_size,
        oof=None if predicted is None else oof,
        changes=run["resolved"],
    )


def _size(folder: Path) -> int:
    return sum(file.stat().st_size for file in folder.glob("*")) if folder.is_dir() else 0

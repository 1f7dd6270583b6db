"""Every recipe learns eight images by heart: its parts fit together, and gradients reach the model.

The encoder is replaced by a small one, and what only slows heart learning is left out: crops,
augmentation, the falling share of defects and pretrained weights.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch

from kagflow import resources
from kagflow.config import load_recipe
from kagflow.infer.engine import load_member, predict_probs
from kagflow.learn.job import Job
from kagflow.learn.train import train
from kagflow.naming import FULL
from kagflow.task.folds import write_folds
from kagflow.task.rle import encode
from kagflow.task.spec import TaskSpec

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]
SMALL = "mobilenetv3_small_050"
SPEC = TaskSpec(slug="squares", kind="segmentation", classes=("1", "2"))
RECIPES = sorted(
    [
        *(resources.competitions() / "severstal" / "recipes").glob("*.yaml"),
        *Path(str(resources.templates())).glob("competition/recipes/*.yaml"),
    ]
)


@pytest.fixture
def eight(tmp_path: Path) -> Path:
    """Write eight images of 64x64: bright squares, dark bars, one clean, one with both."""
    data = tmp_path / "data" / "squares"
    (data / "train_images").mkdir(parents=True)
    rng = np.random.default_rng(0)
    rows, folds = ["ImageId,ClassId,EncodedPixels"], {}
    for number in range(8):
        name, image = f"{number}.png", rng.normal(110, 8, (64, 64))
        shown = () if number == 0 else (0, 1) if number == 1 else (number % 2,)
        for index in shown:
            mask = np.zeros((64, 64), np.uint8)
            top, left = 2 + 30 * index, int(rng.integers(4, 36))
            mask[top : top + 28 - 14 * index, left : left + 24] = 1
            image[mask > 0] += (70, -70)[index]
            rows.append(f"{name},{index + 1},{encode(mask)}")
        cv2.imwrite(str(data / "train_images" / name), np.clip(image, 0, 255).astype(np.uint8))
        folds[name] = (number, number % 2)
    (data / "train.csv").write_text("\n".join(rows) + "\n")
    write_folds(data / "folds.csv", folds)
    (data / "manifest.json").write_text('{"profile": "local"}')
    return data


def small(path: Path) -> dict[str, Any]:
    """Return a recipe with its own model class, loss, input, optimiser and schedule, made small."""
    recipe = load_recipe(path).model_dump(mode="json")
    kwargs = recipe["model"]["kwargs"]
    key = "name" if "name" in kwargs else "encoder"
    kwargs[key] = (
        SMALL if key == "name" or "PeakGate" in recipe["model"]["target"] else f"tu-{SMALL}"
    )
    # The learning rates were chosen for thousands of steps from pretrained weights.
    optimiser = recipe["optimiser"] | {"lr": 3e-3, "encoder_lr": 1.0}
    plain = {"target": "plain", "kwargs": {}}
    return recipe | {
        "weights": "none", "size": None, "crop": None, "sampler": plain, "optimiser": optimiser,
        "augment": {"target": "none", "kwargs": {}}, "batch": 8, "accumulate": 1, "epochs": 200,
        "samples": 8, "ema": 0.9, "average": 1, "workers": 0, "tta": ["none"],
    }  # fmt: skip


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_eight_images_are_learnt_by_heart(
    path: Path, eight: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "path", [str(resources.competitions()), *sys.path])
    torch.set_num_threads(1)
    job = Job(
        tmp_path / "runs" / "squares" / path.stem / "full", small(path), SPEC, eight, FULL, "cpu"
    )
    train(job)
    member = job.member
    modules = load_member(member, 2, "cpu")
    files = [(one.name, one) for one in sorted((eight / "train_images").iterdir())]
    truth = truth_of(eight)
    both = true = predicted = 0.0
    for found in predict_probs(member, modules, files):
        wanted = truth[found.image_id]
        if member.predicts == "label":
            wanted = wanted.any(axis=(1, 2))
        answer = found.probs >= 0.5
        both += float((answer & wanted).sum())
        true += float(wanted.sum())
        predicted += float(answer.sum())
    assert true > 0
    assert 2 * both / (true + predicted) > 0.95


def truth_of(data: Path) -> dict[str, np.ndarray]:
    from kagflow.task.labels import read_labels
    from kagflow.task.rle import decode

    names = [one.name for one in (data / "train_images").iterdir()]
    runs = read_labels(data / "train.csv", SPEC, only=names)
    masks = {name: np.zeros((2, 64, 64), bool) for name in names}
    for name, found in runs.items():
        for index, text in found.items():
            masks[name][index] = decode(text, 64, 64) > 0
    return masks

"""A generated competition of bright squares and dark bars on noise, and recipes for it."""

from __future__ import annotations

import copy
import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch

from kagflow.learn import checkpoint
from kagflow.learn.job import Job
from kagflow.task.folds import write_folds
from kagflow.task.rle import encode
from kagflow.task.spec import TaskSpec

SPEC = TaskSpec(slug="squares", kind="segmentation", classes=("1", "2"))
RECIPE: dict[str, Any] = {
    "predicts": "mask",
    "model": {"target": "tiny_models:TinyNet", "kwargs": {}},
    "weights": "none",
    "input": {"target": "grey", "kwargs": {}},
    "size": None,
    "crop": None,
    "loss": {"target": "bce", "kwargs": {}},
    "sampler": {"target": "plain", "kwargs": {}},
    "augment": {"target": "flips", "kwargs": {}},
    "optimiser": {
        "target": "adamw", "lr": 0.01, "weight_decay": 0.01, "encoder_lr": 1.0, "kwargs": {}
    },
    "schedule": {"target": "cosine", "kwargs": {"warmup": 0.05}},
    "epochs": 3,
    "samples": None,
    "batch": 4,
    "accumulate": 1,
    "precision": "auto",
    "ema": 0.9,
    "clip": 1.0,
    "average": 1,
    "early_stop": None,
    "compile": False,
    "assets": {},
    "tta": ["none", "hflip"],
    "seed": 0,
    "workers": 0,
}  # fmt: skip


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    # Networks this small spend their time on waking threads, many times over on a busy machine.
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def plugins(monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = Path(__file__).parent / "plugins"
    monkeypatch.syspath_prepend(str(folder))
    return folder


@pytest.fixture
def recipe(plugins: Path) -> Callable[..., dict[str, Any]]:
    def make(**changes: Any) -> dict[str, Any]:
        return copy.deepcopy(RECIPE) | changes

    return make


@pytest.fixture
def spec() -> TaskSpec:
    return SPEC


@pytest.fixture
def run_dir(tmp_path: Path) -> Path:
    return tmp_path / "work" / "runs" / "squares" / "tiny" / "fold0"


@pytest.fixture
def squares(tmp_path: Path) -> Path:
    """Return a fetched competition: 24 images of 64 x 64, a third of them clean, 2 folds."""
    return write_squares(tmp_path / "work" / "data" / "squares")


def write_squares(folder: Path, count: int = 24, size: int = 64) -> Path:
    rng = np.random.default_rng(0)
    (folder / "train_images").mkdir(parents=True)
    rows, folds = ["ImageId,ClassId,EncodedPixels"], {}
    for number in range(count):
        name = f"{number:03}.png"
        image = rng.normal(110, 12, (size, size))
        for index in range(2) if number % 3 else ():
            mask = np.zeros((size, size), np.uint8)
            top, left = rng.integers(4, size - 28, 2)
            mask[
                top : top + (16 if index == 0 else 6), left : left + (16 if index == 0 else 24)
            ] = 1
            if index == 0 or number % 3 == 1:
                image[mask > 0] += 70 if index == 0 else -70
                rows.append(f"{name},{index + 1},{encode(mask)}")
        cv2.imwrite(str(folder / "train_images" / name), np.clip(image, 0, 255).astype(np.uint8))
        folds[name] = (number, number % 2)
    (folder / "train.csv").write_text("\n".join(rows) + "\n")
    write_folds(folder / "folds.csv", folds)
    (folder / "manifest.json").write_text(json.dumps({"profile": "local", "generated": True}))
    return folder


class StopAt:
    """Send a signal to this process when so many steps are done."""

    def __init__(self, step: int, number: int) -> None:
        self.left, self.number = step, number

    def start(self, label, total=None, unit=""):
        self.counts = unit == "steps"

    def advance(self, n=1):
        if self.counts and n == 1:
            self.left -= 1
            if self.left == 0:
                os.kill(os.getpid(), self.number)

    def show(self, figures, *, whole=False):
        pass

    def note(self, text):
        pass

    def finish(self):
        pass


@pytest.fixture
def stop_at() -> type[StopAt]:
    return StopAt


@pytest.fixture
def differences() -> Callable[[Any, Any], list[str]]:
    """Return what names the places where the last states of two jobs (or two states) differ."""

    def state(of: Any) -> Any:
        return checkpoint.newest(of.run_dir).state if isinstance(of, Job) else of

    return lambda one, two: list(_differences(state(one), state(two)))


def _differences(one: Any, two: Any, path: str = "") -> Iterator[str]:
    """Yield the places where two saved states differ, wall times aside."""
    if isinstance(one, torch.Tensor):
        if not torch.equal(one, two):
            yield path
    elif isinstance(one, dict):
        assert one.keys() == two.keys()
        for key in one:
            if key not in ("seconds", "waited", "images_per_second", "wait_share", "time"):
                yield from _differences(one[key], two[key], f"{path}.{key}")
    elif isinstance(one, list | tuple):
        if len(one) != len(two):
            yield path
        for at, (a, b) in enumerate(zip(one, two, strict=False)):
            yield from _differences(a, b, f"{path}[{at}]")
    elif one != two:
        yield path

"""Tiny plug-in models whose answers are known by hand, importable as `plugins_for_infer`."""

import json
import sys

import cv2
import numpy as np
import pytest

from kagflow.infer.export import save_weights
from kagflow.infer.members import Member
from kagflow.infer.models import build_model

PLUGIN = '''
import time

import torch
from torch import nn

CALLS = []


class Bright(nn.Module):
    """Mask logits: gain * (x - middle), the same for every class but for its sign."""

    def __init__(self, classes, gain=20.0, middle=0.5):
        super().__init__()
        sign = [1.0 if i % 2 == 0 else -1.0 for i in range(classes)]
        self.gain = nn.Parameter(torch.tensor(sign) * gain)
        self.middle = middle

    def forward(self, x):
        CALLS.append(("mask", tuple(x.shape)))
        return (x[:, :1] - self.middle) * self.gain.view(1, -1, 1, 1)


class Ramp(nn.Module):
    """Mask logits that grow with the column: not equivariant under hflip."""

    def __init__(self, classes):
        super().__init__()
        self.gain = nn.Parameter(torch.full((classes,), 0.25))

    def forward(self, x):
        column = torch.arange(x.shape[-1], dtype=x.dtype).expand(x.shape[0], 1, *x.shape[-2:])
        return column * self.gain.view(1, -1, 1, 1)


class MeanLabel(nn.Module):
    """Label logits: 20 * (mean brightness - .5) for every class."""

    def __init__(self, classes, offset=0.0):
        super().__init__()
        self.gain = nn.Parameter(torch.full((classes,), 20.0))
        self.offset = offset

    def forward(self, x):
        CALLS.append(("label", tuple(x.shape)))
        return {"label": (x.mean((1, 2, 3))[:, None] - 0.5) * self.gain + self.offset}


class Crash(nn.Module):
    def __init__(self, classes, after=0):
        super().__init__()
        self.gain = nn.Parameter(torch.zeros(classes))
        self.left = after

    def forward(self, x):
        self.left -= 1
        if self.left < 0:
            raise RuntimeError("device fell off the bus")
        return torch.ones(x.shape[0], self.gain.numel(), *x.shape[-2:]) * 9


class Slow(Bright):
    def __init__(self, classes, seconds=0.1):
        super().__init__(classes)
        self.seconds = seconds

    def forward(self, x):
        time.sleep(self.seconds)
        return super().forward(x)


class HalfMap(nn.Module):
    """Logits at half the input's size."""

    def __init__(self, classes):
        super().__init__()
        self.gain = nn.Parameter(torch.full((classes,), 20.0))

    def forward(self, x):
        small = nn.functional.avg_pool2d(x[:, :1], 2)
        return (small - 0.5) * self.gain.view(1, -1, 1, 1)
'''

PLAIN = {"target": "grey", "kwargs": {"mean": 0.0, "std": 1.0}}


@pytest.fixture
def plugins(tmp_path, monkeypatch):
    (tmp_path / "plug").mkdir()
    (tmp_path / "plug" / "plugins_for_infer.py").write_text(PLUGIN)
    monkeypatch.syspath_prepend(tmp_path / "plug")
    monkeypatch.delitem(sys.modules, "plugins_for_infer", raising=False)
    import plugins_for_infer

    yield plugins_for_infer
    sys.modules.pop("plugins_for_infer", None)


@pytest.fixture
def member(plugins, tmp_path):
    """Return a maker of members with saved weights of a plug-in model."""

    def make(
        name, *, predicts="mask", classes=2, folds=1, size=None, weight=1.0, tta=("none",), **kwargs
    ):
        model = {"target": f"plugins_for_infer:{name}", "kwargs": kwargs}
        paths = []
        for fold in range(folds):
            number = len(list(tmp_path.glob("*.safetensors")))
            path = tmp_path / f"{name}-{number}.fold{fold}.safetensors"
            save_weights(build_model(model, classes=classes), path)
            paths.append(path)
        return Member(name, predicts, model, PLAIN, size, tuple(paths), weight, tta)

    return make


@pytest.fixture
def competition(tmp_path):
    """Write a small competition folder: bright square left on dark, by class index parity."""
    from kagflow.task.spec import TaskSpec

    folder = tmp_path / "competition"
    (folder / "test_images").mkdir(parents=True)
    rows = ["ImageId,ClassId,EncodedPixels"]
    for index in range(12):
        image = np.zeros((20 + 2 * (index % 3), 40), np.uint8)
        image[4:10, 5:15] = 255
        name = f"i{index:02d}.png"
        cv2.imwrite(str(folder / "test_images" / name), image)
        rows += [f"{name},{label},1 1" for label in ("a", "b")]
    (folder / "sample_submission.csv").write_text("\n".join(rows) + "\n")
    return folder, TaskSpec("tiny", "segmentation", ("a", "b"))


@pytest.fixture
def pack(tmp_path, member, competition):
    """Return a maker of pack folders: config.json and fp16 weights beside it."""
    from kagflow.infer.export import export_fp16

    def make(*members, rules=None, **config):
        folder = tmp_path / "pack"
        folder.mkdir(exist_ok=True)
        entries = []
        for one in members:
            names = [path.name for path in one.weights]
            for path in one.weights:
                export_fp16(path, folder / path.name)
            entry = {"name": one.name, "predicts": one.predicts, "model": one.model}
            entry |= {"input": one.input, "size": one.size, "weights": names}
            entries.append(entry | {"weight": one.weight, "tta": list(one.tta)})
        rules = rules or [{"threshold": 0.5, "min_area": 1, "gate": 0.0, "empty": False}] * 2
        task = competition[1].to_dict()
        whole = {"schema": 1, "task": task, "members": entries, "rules": rules, "batch": 4}
        (folder / "config.json").write_text(json.dumps(whole | config))
        return folder

    return make

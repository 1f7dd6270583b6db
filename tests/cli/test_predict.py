"""predict on folders as people have them: broken files, odd names, either form, overlays."""

from __future__ import annotations

import csv
import json

import cv2
import numpy as np
import pytest

from kagflow.cli import app
from kagflow.durable import write_json
from kagflow.infer.export import save_weights
from kagflow.infer.models import build_model
from kagflow.task.rle import encode

YAML = """slug: tiles
title: Tiles
classes: ["1", "2"]
default_recipe: base
"""
# The first class is what is bright; the second is never seen.
MODEL = """import torch
from torch import nn


class Bright(nn.Module):
    def __init__(self, classes):
        super().__init__()
        self.gain = nn.Parameter(torch.tensor([20.0] + [0.0] * (classes - 1)))

    def forward(self, x):
        gain = self.gain.view(1, -1, 1, 1)
        return (x[:, :1] - 0.5) * gain - 9.0 * (gain == 0)


def bright(classes):
    return Bright(classes)
"""


@pytest.fixture
def tiles(tmp_path, monkeypatch):
    """Be in a workspace with an ensemble whose one model sees what is bright."""
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "competitions" / "tiles_by_hand"
    folder.mkdir(parents=True)
    (folder / "competition.yaml").write_text(YAML)
    (folder / "__init__.py").touch()
    (folder / "models.py").write_text(MODEL)
    monkeypatch.syspath_prepend(folder.parent)
    model = {"target": "tiles_by_hand.models:bright", "kwargs": {}}
    save_weights(build_model(model, classes=2), tmp_path / "w.safetensors")
    member = {
        "run": "bright", "folds": [0], "predicts": "mask", "weight": 1.0, "model": model,
        "input": {"target": "grey", "kwargs": {"mean": 0.0, "std": 1.0}}, "size": None,
        "tta": ["none"], "weights": ["w.safetensors"],
    }  # fmt: skip
    value = {
        "task": {"slug": "tiles", "kind": "segmentation", "classes": ["1", "2"]},
        "members": [member],
        "rules": [{}, {}],
    }
    write_json(tmp_path / "ensembles" / "tiles_by_hand" / "hand.json", value)
    return tmp_path


@pytest.fixture
def predict(tiles, capsys):
    def run(*words, code=0):
        with pytest.raises(SystemExit) as ended:
            app.main(["--json", "predict", *map(str, words), "--ensemble", "hand"])
        out, err = capsys.readouterr()
        assert (ended.value.code or 0) == code, err
        return json.loads(out), err

    return run


def image(path, height, width):
    grey = np.zeros((height, width), np.uint8)
    grey[2:7, 3:9] = 255
    path.parent.mkdir(exist_ok=True)
    cv2.imwrite(str(path), grey)
    return encode(grey)


def test_any_folder_becomes_a_submission(tiles, predict):
    folder, out = tiles / "some", tiles / "new" / "s.csv"
    first = image(folder / "a, b.png", 20, 30)
    second = image(folder / "ü.png", 41, 17)
    (folder / "broken.jpg").write_bytes(b"no image")
    (folder / "empty.png").touch()
    (folder / "notes.txt").write_text("x")
    value, told = predict(folder, "-o", out, "--overlays", tiles / "drawn")
    with out.open(newline="") as file:
        rows = list(csv.reader(file))
    assert rows == [
        ["ImageId", "ClassId", "EncodedPixels"],
        ["a, b.png", "1", first], ["a, b.png", "2", ""],
        ["broken.jpg", "1", ""], ["broken.jpg", "2", ""],
        ["empty.png", "1", ""], ["empty.png", "2", ""],
        ["ü.png", "1", second], ["ü.png", "2", ""],
    ]  # fmt: skip
    assert (value["images"], value["with_predictions"]) == (4, 2)
    assert sorted(value["unreadable"]) == ["broken.jpg", "empty.png"]
    assert "warning: broken.jpg gets empty rows" in told
    drawn = sorted(file.name for file in (tiles / "drawn").iterdir())
    assert drawn == ["a, b.png.png", "ü.png.png"]
    picture = cv2.imdecode(np.fromfile(tiles / "drawn" / "ü.png.png", np.uint8), cv2.IMREAD_COLOR)
    assert picture.shape == (41, 17, 3)
    assert picture[2, 5].tolist() != [255, 255, 255]


def test_the_form_is_that_of_the_sample(tiles, predict):
    data = tiles / "data" / "tiles_by_hand"
    data.mkdir(parents=True)
    (data / "sample_submission.csv").write_text("ImageId_ClassId,EncodedPixels\nq_1,\nq_2,\n")
    rows = image(tiles / "some" / "a.png", 20, 30)
    predict(tiles / "some", "-o", tiles / "s.csv")
    assert (tiles / "s.csv").read_text() == (
        f"ImageId_ClassId,EncodedPixels\na.png_1,{rows}\na.png_2,\n"
    )


def test_folders_that_cannot_be_meant_are_refused(tiles, predict):
    (tiles / "none").mkdir()
    assert "no images in" in predict(tiles / "none", "-o", "s.csv", code=2)[0]["error"]
    assert "is no folder" in predict(tiles / "nothere", "-o", "s.csv", code=2)[0]["error"]
    image(tiles / "some" / "a.png", 20, 30)
    same = predict(tiles / "some", "-o", "s.csv", "--overlays", tiles / "some", code=2)
    assert "folder of the images" in same[0]["error"]
    assert "is a folder" in predict(tiles / "some", "-o", tiles / "none", code=2)[0]["error"]

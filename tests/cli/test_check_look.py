"""kagflow check RECIPE --look: the table, the sheet, the faults, on a competition of 16 squares."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from kagflow.cli.app import main
from kagflow.task.folds import write_folds
from kagflow.task.rle import encode

RECIPE = "model: {target: 'steel.models:net'}\nsampler: {target: plain}\nbatch: 4\n"
MODELS = """\
import albumentations as A
from torch import nn

def net(*, classes):
    return nn.Conv2d(1, classes, 3, padding=1)

def half(*, classes):
    return nn.Conv2d(1, classes, 3, padding=1, stride=2)

def broken():
    return A.Compose([A.Lambda(image=beyond, p=1.0)])

def beyond(image, **_):
    return image[:, :, 5]
"""


@pytest.fixture
def steel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Return the workspace of a fetched competition of one class."""
    folder, data = tmp_path / "competitions" / "steel", tmp_path / "data" / "steel"
    (folder / "recipes").mkdir(parents=True)
    (data / "train_images").mkdir(parents=True)
    text = "slug: steel\ntitle: Steel\nclasses: ['dent']\ndefault_recipe: base\n"
    (folder / "competition.yaml").write_text(text)
    (folder / "models.py").write_text(MODELS)
    (folder / "recipes" / "base.yaml").write_text(RECIPE)
    rows, folds = ["ImageId,ClassId,EncodedPixels"], {}
    for number in range(32):
        name, mask = f"{number:02}.png", np.zeros((32, 48), np.uint8)
        mask[4:12, number % 30 : number % 30 + 8] = number % 2
        cv2.imwrite(str(data / "train_images" / name), 90 + 100 * mask)
        rows += [f"{name},dent,{encode(mask)}"] if mask.any() else []
        folds[name] = (number, number // 16)
    (data / "train.csv").write_text("\n".join(rows) + "\n")
    (data / "manifest.json").write_text("{}")
    write_folds(data / "folds.csv", folds)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    yield tmp_path
    for name in [one for one in sys.modules if one.split(".")[0] == "steel"]:
        del sys.modules[name]


@pytest.fixture
def check(capsys: pytest.CaptureFixture[str]) -> Any:
    def run(*words: str, code: int = 0) -> Any:
        with pytest.raises(SystemExit) as stopped:
            main(["check", *words])
        out, err = capsys.readouterr()
        assert (stopped.value.code or 0) == code, err + out
        return json.loads(out) if "--json" in words else (out, err)

    return run


def test_a_look_is_a_table_a_sheet_and_a_gradient(steel: Path, check: Any) -> None:
    out, err = check("base", "--look", "epochs=3")
    sheet = steel / "looks" / "steel" / "base+epochs=3.png"
    assert cv2.imread(str(sheet)).shape[1] == 1880
    assert "contact sheet: looks/steel/base+epochs=3.png" in out
    assert "reaching 2 of 2 parameters" in out
    assert "a step holds" in out
    assert "output mask (4, 1, 32, 48) float32" in " ".join(out.split())
    assert "dent: 8, none: 8" in out
    assert "the first 16 draws" in err


def test_its_json(steel: Path, check: Any) -> None:
    told = check("base", "--look", "fold=1", "--json")
    assert set(told) == {
        "schema", "look", "samples", "steps", "loss", "gradient_norm", "parameters",
        "without_gradient", "frozen", "notes", "faults", "sheet", "seconds",
    }  # fmt: skip
    assert told["look"] == "base fold 1"
    assert {int(one["image_id"][:2]) // 16 for one in told["samples"]} == {0}
    assert set(told["steps"][0]) == {"name", "shape", "dtype", "low", "high", "classes"}
    assert told["gradient_norm"] > 0
    assert told["without_gradient"] == []


def test_a_faulty_step_leaves_with_2_and_the_sheet_of_what_came_before(
    steel: Path, check: Any
) -> None:
    told = check("base", "--look", "model.target=steel.models:half", "--json", code=2)
    assert told["exit_code"] == 2
    assert told["error"].endswith("faulty at model")
    assert "(4, 1, 16, 24)" in told["faults"][0]["what"]
    assert Path(told["sheet"]).is_file()
    out, err = check("base", "--look", "augment.target=steel.models:broken", code=2)
    assert "augment raised IndexError on sample 1 (" in out
    assert "    it was given image (32, 48) uint8 from 90 to " in out
    assert '|   File "competitions/steel/models.py", line 14, in beyond' in out
    assert "Traceback" not in out + err


def test_it_takes_one_sound_recipe_that_was_fetched(steel: Path, check: Any) -> None:
    _, err = check("base", "batch=2,4", "--look", code=2)
    assert "--look takes one recipe at a time" in err
    out, _ = check("base", "batch=0", "--look", code=2)
    assert "batch=0" in out
    (steel / "data" / "steel" / "manifest.json").unlink()
    _, err = check("base", "--look", code=2)
    assert "steel has not been fetched" in err

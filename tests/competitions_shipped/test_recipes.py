"""Every recipe of Severstal, found by glob: how it opens, and a few steps on severstal-mini."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from kagflow import resources
from kagflow.config import load_competition, load_recipe
from kagflow.learn.oof import OofReader
from kagflow.learn.step import Told
from kagflow.learn.train import train_fold
from kagflow.task.folds import write_folds

HOME = resources.competitions() / "severstal"
RECIPES = sorted((HOME / "recipes").glob("*.yaml"))
ASKED = {
    "affinity", "fpn-convnext", "fpn-effnet", "gate-effnet", "lite", "shallow-deep", "siamese",
    "smoke", "unet-mobilenet2", "unet-resnet34", "unet-se-resnext50",
}  # fmt: skip
# Encoders too big for a CPU, and a small one in the place of each; any other is trained as it is.
SMALLER = {
    "mobilenet_v2": "tu-mobilenetv3_small_050",
    "resnet34": "tu-resnet10t",
    "se_resnext50_32x4d": "tu-mobilenetv3_small_050",
    "tf_efficientnet_b1": "mobilenetv3_small_050",
    "tu-convnextv2_tiny": "tu-convnextv2_atto",
    "tu-tf_efficientnet_b3": "tu-mobilenetv3_small_050",
    "tu-tf_efficientnet_b5": "tu-mobilenetv3_small_050",
}
FRAMES, BATCH, STEPS = 8, 2, 2


@pytest.fixture(scope="module")
def steel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return eight frames of severstal-mini as fetch would leave them, in two folds."""
    home = tmp_path_factory.mktemp("steel")
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(HOME.parent))
        import severstal.mini as mini

        patch.setattr(mini, "SPLITS", {"train": FRAMES, "Public": 1, "Private": 1})
        mini.generate(home / "mini", seed=0)
    data = home / "data" / "severstal"
    data.parent.mkdir()
    (home / "mini" / "public").rename(data)
    names = sorted(path.name for path in (data / "train_images").iterdir())
    write_folds(data / "folds.csv", {name: (at, at % 2) for at, name in enumerate(names)})
    (data / "manifest.json").write_text('{"profile": "local"}')
    return data


def small(path: Path) -> dict[str, Any]:
    """Return a recipe for a few steps on a CPU, without a network; the rest stays its own."""
    recipe = load_recipe(path).model_dump(mode="json")
    kwargs = recipe["model"]["kwargs"]
    key = "name" if "name" in kwargs else "encoder"
    replaced = kwargs[key] in SMALLER
    kwargs[key] = SMALLER.get(kwargs[key], kwargs[key])
    if replaced or recipe["weights"] == "imagenet":
        recipe["weights"] = "none"
    samples = STEPS * BATCH * recipe["accumulate"]
    return recipe | {"epochs": 1, "samples": samples, "batch": BATCH, "workers": 0}


def test_all_that_were_asked_for_are_there() -> None:
    assert {path.stem for path in RECIPES} >= ASKED


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_a_recipe_opens_with_its_command_and_one_line_on_why(path: Path) -> None:
    command, why, body = path.read_text().split("\n", 2)
    assert re.fullmatch(rf"# kagflow train severstal recipe={path.stem} fold=\S+( .*)?", command)
    assert re.fullmatch(r"# [A-Z].{20,}\.", why)
    assert not body.startswith("#")


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_a_recipe_trains_a_few_steps(
    path: Path, steel: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "path", [str(HOME.parent), *sys.path])
    told: list[tuple[float, bool]] = []
    read_step = Told.read
    # An epoch's line leaves bad steps out, which training lives through.
    monkeypatch.setattr(Told, "read", lambda step: told.append(read_step(step)) or told[-1])
    spec = load_competition(HOME).task()
    folder = tmp_path / "runs" / "severstal" / path.stem / "fold0"
    done = train_fold(folder, small(path), spec, steel, fold=0, device="cpu")
    run = json.loads((folder / "run.json").read_text())
    assert (run["finished"], run["steps"], done.images) == (True, STEPS, FRAMES // 2)
    assert len(told) == STEPS
    assert all(fine and np.isfinite(loss) and loss > 0 for loss, fine in told)
    with OofReader(folder / "oof") as store:
        read = store.mask if store.predicts == "mask" else store.label
        shape = (4, 256, 1600) if store.predicts == "mask" else (4,)
        assert len(store.image_ids) == FRAMES // 2
        for name in store.image_ids:
            probs = read(name)
            assert probs.shape == shape
            assert ((probs >= 0) & (probs <= 1)).all()

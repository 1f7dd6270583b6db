"""The competition scaffold: valid as it lies there, whatever name it is given."""

from __future__ import annotations

import shutil
from pathlib import Path

from kagflow import resources
from kagflow.config import load_competition, load_recipe
from kagflow.infer.models import build_model
from kagflow.learn.augment import AUGMENTS
from kagflow.learn.losses import LOSSES
from kagflow.learn.sampler import SAMPLERS
from kagflow.ship.runtime import runtime_files


def scaffold(tmp_path: Path) -> Path:
    folder = tmp_path / "steel_defects"
    shutil.copytree(resources.templates() / "competition", folder)
    config = folder / "competition.yaml"
    config.write_text(config.read_text().replace("NAME", folder.name))
    return folder


def test_the_scaffold_is_a_valid_competition_that_travels(tmp_path: Path) -> None:
    folder = scaffold(tmp_path)
    competition = load_competition(folder)
    assert competition.slug == "steel_defects"
    assert (folder / "recipes" / f"{competition.default_recipe}.yaml").is_file()
    assert "steel_defects/recipes/base.yaml" in runtime_files(folder)


def test_its_recipe_names_only_what_exists(tmp_path: Path) -> None:
    folder = scaffold(tmp_path)
    recipe = load_recipe(folder / "recipes" / "base.yaml")
    assert recipe.loss.target in LOSSES
    assert recipe.sampler.target in SAMPLERS
    assert recipe.augment.target in AUGMENTS
    build_model(recipe.model.model_dump(), classes=1)

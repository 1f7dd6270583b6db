"""The README's table of recipes is what was measured, of the recipes and models that there are."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from types import ModuleType

import pytest

from kagflow.config import load_recipe

README = Path(__file__).parents[2] / "README.md"
MEND = "make recipes, and commit README.md with bench/recipes.json"


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(Path(__file__).parents[2] / "bench"))
    import recipes

    yield recipes
    sys.modules.pop("recipes", None)


@pytest.fixture
def shown() -> dict[str, str]:
    """Return the parameters that the README's table shows, by recipe."""
    section = README.read_text().split("## Recipes for Severstal")[1].split("\n## ")[0]
    rows = re.findall(r"^\| `(\S+)` \| .+? \| (\S+) M \|", section, re.MULTILINE)
    assert len(rows) == len(dict(rows))
    return dict(rows)


def test_the_table_lists_every_recipe_and_no_other(bench: ModuleType, shown: dict) -> None:
    assert sorted(shown) == sorted(bench.recipes()), MEND


def test_parameters_are_those_of_the_models(bench: ModuleType, shown: dict) -> None:
    for name, path in bench.recipes().items():
        count = bench.parameters(load_recipe(path).model_dump(mode="json"))
        assert shown[name] == f"{count / 1e6:.1f}", f"{name}: {MEND}"
        assert bench.kept()[name].parameters == count, f"{name}: {MEND}"


def test_no_figure_is_typed_by_hand(bench: ModuleType) -> None:
    page = README.read_text()
    assert bench.written(page, bench.kept()) == page, MEND


def test_what_was_measured_is_the_recipe_of_today(bench: ModuleType) -> None:
    for name, path in bench.recipes().items():
        recipe = load_recipe(path).model_dump(mode="json")
        assert bench.kept()[name].key == bench.key_of(recipe), f"{name}: {MEND}"

"""A new competition from another: recipes and code under the new name, nothing of its data."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from kagflow.cli.app import main
from kagflow.config import load_competition, load_recipe

Capsys = pytest.CaptureFixture[str]
TARGETS = """\"\"\"Objects of wheels: its prose says wheels too.\"\"\"

from wheels import helpers
from wheels.helpers import half


def make():
    return helpers, half
"""


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a workspace that knows a competition `wheels` with code, a generator and a log."""
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "competitions" / "wheels"
    (folder / "recipes").mkdir(parents=True)
    (folder / "competition.yaml").write_text(
        "slug: wheels-of-steel\ntitle: Wheels\nkind: segmentation\nclasses: ['1', '2']\n"
        "default_recipe: own\n"
        "requires: [cc3d]\nmini: {generate: 'wheels.drawn:generate', recipe: little, gate: guess}\n"
    )
    for name in ("own", "little", "guess"):
        (folder / "recipes" / f"{name}.yaml").write_text(
            f"# kagflow train wheels recipe={name}\nmodel: {{target: 'wheels.models:make'}}\n"
        )
    for name in ("__init__", "models", "helpers", "drawn", "drawn_steel"):
        (folder / f"{name}.py").write_text(TARGETS)
    (folder / "LOG.md").write_text("what wheels scored")
    return tmp_path / "competitions"


def init(capsys: Capsys, *words: str) -> tuple[int, dict[str, Any]]:
    with pytest.raises(SystemExit) as ended:
        main(["init", *words, "--json"])
    return int(ended.value.code or 0), json.loads(capsys.readouterr().out)


def test_recipes_and_code_come_under_the_new_name(home: Path, capsys: Capsys) -> None:
    code, told = init(capsys, "rails", "--from", "wheels")
    assert code == 0
    assert told["files"] == [
        "__init__.py", "competition.yaml", "helpers.py", "models.py", "recipes/own.yaml",
    ]  # fmt: skip
    rails = home / "rails"
    recipe = load_recipe(rails / "recipes" / "own.yaml", [])
    assert recipe.model.target == "rails.models:make"
    assert "kagflow train rails recipe=own" in (rails / "recipes" / "own.yaml").read_text()
    text = (rails / "models.py").read_text()
    assert "from rails import helpers\nfrom rails.helpers import half" in text
    assert "Objects of wheels: its prose says wheels too." in text


def test_what_is_said_of_the_other_data_stays_behind(home: Path, capsys: Capsys) -> None:
    assert init(capsys, "rails", "--from", "wheels")[0] == 0
    made = load_competition(home / "rails")
    assert (made.slug, made.classes, made.mini) == ("rails", ("1",), None)
    assert (made.default_recipe, made.requires) == ("own", ("cc3d",))


def test_a_package_that_is_only_described_is_described_anew(home: Path, capsys: Capsys) -> None:
    (home / "wheels" / "__init__.py").write_text('"""What is known of wheels."""\n')
    assert init(capsys, "rails", "--from", "wheels")[0] == 0
    text = (home / "rails" / "__init__.py").read_text()
    assert text.startswith('"""')
    assert "wheels" not in text


def test_a_small_recipe_that_is_the_default_comes_along(home: Path, capsys: Capsys) -> None:
    yaml = home / "wheels" / "competition.yaml"
    yaml.write_text(yaml.read_text().replace("default_recipe: own", "default_recipe: little"))
    assert "recipes/little.yaml" in init(capsys, "rails", "--from", "wheels")[1]["files"]


def test_an_unknown_source_leaves_nothing(home: Path, capsys: Capsys) -> None:
    code, told = init(capsys, "rails", "--from", "wheel")
    assert code == 2
    assert "did you mean 'wheels'" in told["hint"]
    assert not (home / "rails").exists()


@pytest.mark.parametrize("name", ["a", "rails", "rails_of_every_kind_and_of_every_length"])
def test_comments_stay_in_their_column(home: Path, capsys: Capsys, name: str) -> None:
    assert init(capsys, name)[0] == 0
    slug, *_ = (home / name / "competition.yaml").read_text().splitlines()[1:]
    assert slug.startswith(f"slug: {name} ")
    assert slug.index("#") == max(32, len(f"slug: {name} "))


@pytest.mark.slow
def test_a_scaffold_from_the_shipped_competition_checks_green(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capsys
) -> None:
    monkeypatch.chdir(tmp_path)
    assert init(capsys, "rails", "--from", "severstal")[0] == 0
    with pytest.raises(SystemExit) as ended:
        main(["check", "--json"])
    assert ended.value.code in (0, None)
    assert json.loads(capsys.readouterr().out)["faults"] == []

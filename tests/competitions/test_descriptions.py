"""The test competitions are read as any other, and the generated one is the same every time."""

from __future__ import annotations

import importlib
from pathlib import Path

import pytest

from kagflow.config import load_competition, load_recipe
from kagflow.rehearse.register import facts_of, register
from kagflow.rehearse.store import Store
from kagflow.task.check import check_submission
from kagflow.task.labels import read_labels
from kagflow.task.score import score_files
from kagflow.task.submission import write_empty

HERE = Path(__file__).parent
FOLDERS = sorted(path.parent.name for path in HERE.glob("*/competition.yaml"))


@pytest.fixture
def shapes(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(HERE))
    generate = importlib.import_module("shapes.mini").generate
    generate(tmp_path / "made", seed=0)
    return generate


@pytest.mark.parametrize("name", FOLDERS)
def test_descriptions_and_recipes_load(name) -> None:
    made = load_competition(HERE / name)
    assert made.task().classes
    for path in (HERE / name / "recipes").glob("*.yaml"):
        load_recipe(path)
    assert (HERE / name / "recipes" / f"{made.default_recipe}.yaml").is_file()


def test_there_are_three_to_five_classes() -> None:
    assert {len(load_competition(HERE / name).classes) for name in FOLDERS} == {3, 5}


def test_a_seed_gives_the_same_bytes(tmp_path, shapes) -> None:
    def content(folder: Path) -> dict[str, bytes]:
        files = (path for path in folder.rglob("*") if path.is_file())
        return {str(path.relative_to(folder)): path.read_bytes() for path in files}

    shapes(tmp_path / "again", seed=0)
    shapes(tmp_path / "other", seed=1)
    first = content(tmp_path / "made")
    assert first == content(tmp_path / "again")
    assert first != content(tmp_path / "other")


def test_the_generated_folder_registers_and_scores(tmp_path, shapes) -> None:
    made = load_competition(HERE / "shapes")
    place = register(tmp_path / "store", facts_of(made, generated=True), tmp_path / "made")
    assert Store(tmp_path / "store").has_competition(made.slug)
    task, sample = made.task(), place / "hidden/sample_submission.csv"
    hidden = {path.name for path in (place / "hidden/test_images").iterdir()}
    public = {path.name for path in (place / "public/test_images").iterdir()}
    train = {path.name for path in (place / "public/train_images").iterdir()}
    assert public < hidden
    assert not train & hidden
    assert set(read_labels(place / "public/train.csv", task)) == train
    write_empty(tmp_path / "empty.csv", task, sample)
    assert check_submission(tmp_path / "empty.csv", task, sample) == []
    score = score_files(tmp_path / "empty.csv", place / "solution.csv", task)
    assert {name: part.images for name, part in score.items()} == {
        "all": 120,
        "Public": 30,
        "Private": 90,
    }
    assert 0.1 < score["Private"].value < 0.4

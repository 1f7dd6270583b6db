"""Training on everything: no score of its own, and a place only beside its folds."""

from __future__ import annotations

import json

import pytest
from safetensors.torch import load_file

from kagflow.errors import RefusedError
from kagflow.infer.members import members_from_config
from kagflow.learn.ensemble import Wish, build_ensemble
from kagflow.learn.evaluate import finished_folds
from kagflow.learn.job import Job, read_fold
from kagflow.learn.train import train_fold
from kagflow.progress import QUIET


@pytest.fixture
def trained(squares, spec, recipe, run_dir):
    """Train folds of one run by name, a fixture with their folders."""

    def train(name, folds, **changes):
        folders = []
        for fold in folds:
            place = "full" if fold == "full" else f"fold{fold}"
            folders.append(run_dir.parents[1] / name / place)
            made = recipe(epochs=1, early_stop=1, average=2, **changes)
            train_fold(folders[-1], made, spec, squares, fold=fold)
        return folders

    return train


def test_all_images_are_trained_on_and_none_is_judged(squares, spec, recipe, run_dir):
    data = read_fold(Job(run_dir.with_name("full"), recipe(), spec, squares, "full"), QUIET)
    assert sorted(data.train) == list(range(24))
    assert data.held_out == []
    result = train_fold(run_dir.with_name("full"), recipe(), spec, squares, fold="full")
    assert (result.score, result.floor, result.images, result.remaining) == (None, None, 0, None)
    run = json.loads((run_dir.with_name("full") / "run.json").read_text())
    assert (run["fold"], run["score"], run["finished"]) == ("full", None, True)
    assert not (run_dir.with_name("full") / "oof").exists()
    assert load_file(run_dir.with_name("full") / "best.safetensors")
    assert finished_folds(run_dir.parent) == []
    line = json.loads((run_dir.with_name("full") / "metrics.jsonl").read_text().splitlines()[0])
    assert "val_score" not in line


def test_its_weights_join_the_twins_whose_score_stays(squares, spec, trained, tmp_path):
    home = tmp_path / "work"
    folds, everything = trained("tiny", [0, 1]), trained("tiny", ["full"])
    one = build_ensemble({"tiny": folds}, spec, squares, home=home, wish=Wish("one")).value
    both = build_ensemble(
        {"tiny": everything + folds}, spec, squares, home=home, wish=Wish("both")
    ).value
    assert both["considered"] == {"tiny": [0, 1, "full"]}
    (member,) = both["members"]
    assert member["folds"] == [0, 1, "full"]
    assert member["weights"][2] == "runs/squares/tiny/full/best.safetensors"
    cost, before = member["seconds_per_image"], one["members"][0]["seconds_per_image"]
    assert cost == pytest.approx(before * 3 / 2)
    label = both["cv"].pop("label")
    assert label.startswith(one["cv"].pop("label"))
    assert "tiny trained on everything" in label
    assert both["cv"].pop("unjudged") == ["tiny"]
    assert both["cv"] == one["cv"]
    assert both["rules"] == one["rules"]
    members, _, _ = members_from_config(both, home)
    assert [path.parent.name for path in members[0].weights] == ["fold0", "fold1", "full"]
    assert all(path.is_file() for path in members[0].weights)


def test_alone_it_is_refused(squares, spec, trained, tmp_path):
    runs = {"tiny": trained("tiny", ["full"]), "other": trained("other", [0])}
    with pytest.raises(RefusedError, match="tiny was trained on everything alone") as caught:
        build_ensemble(runs, spec, squares, home=tmp_path / "work", wish=Wish("x"))
    assert "fold=all" in caught.value.hint


def test_a_twin_of_another_recipe_is_refused(squares, spec, trained, tmp_path):
    runs = {"tiny": trained("tiny", [0]) + trained("tiny", ["full"], seed=5)}
    with pytest.raises(RefusedError, match="two recipes"):
        build_ensemble(runs, spec, squares, home=tmp_path / "work", wish=Wish("x"))
    runs = {"same": trained("same", [0]) + trained("same", ["full"], batch=2)}
    assert build_ensemble(runs, spec, squares, home=tmp_path / "work", wish=Wish("x")).value[
        "members"
    ]

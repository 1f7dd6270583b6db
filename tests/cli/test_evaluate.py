"""`kagflow evaluate` and `kagflow ensemble` as typed, on runs as training leaves them."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path

import pytest

from kagflow.cli.app import main

YAML = """slug: comp
title: Squares
classes: ["1", "2"]
default_recipe: none
limits: {hidden_images: 60}
"""


def _load():
    # Under importlib mode, neighbours are no importable names.
    path = Path(__file__).parents[1] / "learn" / "ensemble_house.py"
    spec = importlib.util.spec_from_file_location("ensemble_house", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


houses = _load()


@pytest.fixture
def house(tmp_path, monkeypatch):
    folder = tmp_path / "competitions" / "comp"
    folder.mkdir(parents=True)
    (folder / "competition.yaml").write_text(YAML)
    monkeypatch.chdir(tmp_path)
    made = houses.House(tmp_path, houses.SPEC)
    made.run("a", 0), made.run("a", 1), made.run("bb", 0, seconds=2.0), made.run("bb", 1)
    return made


@pytest.fixture
def call(house, capsys):
    """Run a command; return what it printed on stdout and stderr, as JSON or as text."""

    def run(*words, code=0, text=False):
        with pytest.raises(SystemExit) as ended:
            main([*words] if text else ["--json", *words])
        out, err = capsys.readouterr()
        assert (ended.value.code or 0) == code, err
        return (out, err) if text else json.loads(out)

    return run


def test_runs_are_listed_with_worth_and_cost(call):
    rows = {row["run"]: row for row in call("evaluate")["runs"]}
    assert rows["bb"]["seconds_per_image"] == 2.5
    assert (rows["a"]["seconds"], rows["a"]["images"], rows["a"]["folds"]) == (20, 80, [0, 1])
    out, _ = call("evaluate", text=True)
    assert "0,1 of 2" in out
    assert "0.5500" in out


def test_a_run_is_taken_apart_and_compared_with_an_ensemble(call):
    made = call("ensemble", "--name", "best")
    told = call("evaluate", "a", "best")
    run, best = told["results"]
    assert run["score"] == pytest.approx(1 - sum(
        one[kind]["points"] for one in run["classes"] for kind in ("found", "missed", "invented")
    ))  # fmt: skip
    assert run["interval"][0] < run["score"] < run["interval"][1]
    assert [one["fold"] for one in run["folds"]] == [0, 1]
    assert best["score"] == made["cv"]["crossfitted"]
    assert best["interval"] == made["cv"]["interval"]
    (pair,) = told["comparisons"]
    assert (pair["first"], pair["second"], pair["images"]) == ("a", "best", 80)
    assert pair["paired"]["difference"] == pytest.approx(run["score"] - best["score"])
    assert pair["paired"]["better"] < 0.01
    out, _ = call("evaluate", "a", "best", text=True)
    for said in ("invented", "P(A > B)", "groups of near-duplicates", f"{run['score']:.4f}"):
        assert said in out


def test_an_ensemble_says_every_figure_three_times(call):
    made = call("ensemble")
    out, _ = call("ensemble", text=True)
    for key in ("naive", "crossfitted", "default"):
        assert f"{made['cv'][key]:.4f}" in out
        assert f"{made['candidates'][1][key]:.4f}" in out
    assert "is optimism" in out
    assert f"{made['cost']['minutes']:.1f} min for 60 images" in out
    assert made["ensemble"].endswith("ensembles/comp/default.json")


def test_minutes_and_folds_are_held_to(call, house):
    # b takes 2.5 s an image, a takes 1.
    quick = call("ensemble", "--minutes", "1.2", "--name", "quick")
    assert [one["run"] for one in quick["members"]] == ["a"]
    assert quick["cost"]["limit_minutes"] == 1.2
    told = call("ensemble", "--minutes", "0.5", code=2)
    assert "the fastest, a, takes 1.0" in told["error"]
    house.run("ccc", 0)
    told = call("ensemble", "--complete", code=6)
    assert told["error"] == "ccc: not every fold is trained"
    _, err = call("ensemble", text=True)
    assert "ccc: not every fold is trained; judged on 40 of 80 images" in err


def test_wrong_names_and_other_data_are_one_message(call, house):
    assert "no run 'none'" in call("evaluate", "none", code=2)["error"]
    assert "no finished run 'none'" in call("ensemble", "none", code=2)["error"]
    house.run("gate", 0, "label")
    assert "judged by different things" in call("evaluate", "a", "gate", code=2)["error"]
    (house.data / "manifest.json").write_text('{"profile": "local", "files": {"new": 1}}')
    for words in (("evaluate", "a"), ("ensemble", "a")):
        assert "a: trained on other data" in call(*words, code=6)["error"]

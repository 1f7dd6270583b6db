"""kagflow report as typed."""

from __future__ import annotations

import json

import pytest

from kagflow import durable
from kagflow.cli.app import main

YAML = """slug: tiles-on-kaggle
title: Tiles
classes: ["1", "2", "3"]
default_recipe: base
"""


@pytest.fixture
def call(house, monkeypatch, capsys):
    """Run a command in the house's workspace with --json; return what it printed."""
    folder = house.root / "competitions" / "tiles"
    folder.mkdir(parents=True)
    (folder / "competition.yaml").write_text(YAML)
    durable.write_json(house.root / ".active.json", {"competition": "tiles"})
    monkeypatch.chdir(house.root)
    monkeypatch.setenv("KAGFLOW_HOME", str(house.root / "state"))

    def run(*words, code=0):
        with pytest.raises(SystemExit) as ended:
            main(["--json", *words])
        out, err = capsys.readouterr()
        assert (ended.value.code or 0) == code, err
        return json.loads(out)

    return run


def test_a_report_makes_its_ensemble_and_the_same_bytes(house, call):
    house.run("one").run("two", noise=0.4)
    first = call("report", "--date", "some day")
    assert first["images"] == 24
    assert sorted(first["missing"]) == ["gates", "hours", "submitted"]
    path = house.root / "reports" / "tiles.html"
    assert first["report"] == str(path)
    text = path.read_bytes()
    assert first["bytes"] == len(text)
    assert b"some day" in text
    assert (house.root / "ensembles" / "tiles" / "default.json").is_file()
    call("report", "tiles", "--date", "some day", "-o", "again.html")
    assert (house.root / "again.html").read_bytes() == text


def test_an_ensemble_of_an_earlier_version_is_made_anew(house, call):
    house.run("one").ensemble("one")
    (house.root / "ensembles" / "tiles" / "default.images.csv").unlink()
    assert call("report", "--images", "3")["images"] == 3


def test_a_report_of_nothing_says_what_is_missing(house, call):
    told = call("report")
    assert told["images"] == 0
    assert told["missing"]["cards"]["command"] == "kagflow train fold=0"
    assert "kagflow train fold=0" in (house.root / "reports" / "tiles.html").read_text()


def test_an_ensemble_that_is_not_there_is_an_error(house, call):
    house.run("one")
    assert "no ensemble 'other'" in call("report", "--ensemble", "other", code=2)["error"]
    (house.data / "manifest.json").unlink()
    assert "not been fetched" in call("report", code=2)["error"]

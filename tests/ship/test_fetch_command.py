"""kagflow fetch as typed, against a server of the protocol that somebody else runs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from kagflow.cli.app import main

DESCRIPTION = """
slug: tiny-squares
title: Tiny Squares
classes: ["1", "2"]
folds: 2
default_recipe: plain
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "competitions" / "tiny"
    made.mkdir(parents=True)
    (made / "competition.yaml").write_text(DESCRIPTION)
    return tmp_path


@pytest.fixture
def kagflow(folder, embedded, monkeypatch, capsys) -> Any:
    monkeypatch.chdir(folder)
    monkeypatch.setenv("KAGFLOW_LOCAL_URL", embedded.replace("http://", "http://typed:local@"))

    def run(*words: str, code: int = 0) -> tuple[dict[str, Any], str]:
        with pytest.raises(SystemExit) as stopped:
            main(["--json", "--profile", "local", *words])
        out, err = capsys.readouterr()
        assert (stopped.value.code or 0) == code, err
        return json.loads(out), err

    return run


def test_fetch_as_typed(kagflow, folder) -> None:
    made, said = kagflow("fetch", "tiny")
    assert (made["files"], made["images"], made["already"]) == (13, 11, False)
    assert "download tiny-squares" in said
    data = folder / ".kagflow/local/data/tiny"
    assert {"index.csv", "folds.csv", "dirt.csv", "manifest.json"} <= {
        p.name for p in data.iterdir()
    }
    assert kagflow("fetch")[0]["already"]
    assert kagflow("fetch", "--verify")[0]["already"]
    assert not kagflow("fetch", "--force")[0]["already"]
    # A server of somebody else's needs nothing registered here.
    assert not (folder / ".kagflow/local/kaggle/competitions").exists()


def test_only_some_files_as_typed(kagflow, folder) -> None:
    made, _ = kagflow("fetch", "tiny", "--only", "*.csv")
    assert (made["files"], made["only"]) == (2, "*.csv")
    assert not (folder / ".kagflow/local/data/tiny/folds.csv").exists()


def test_dirt_is_summarised_and_stops_or_not(kagflow, folder) -> None:
    kagflow("fetch", "tiny")
    data = folder / ".kagflow/local/data/tiny"
    (data / "folds.csv").unlink()
    labels = data / "train.csv"
    labels.write_text(labels.read_text() + "0001.png,2,4096 9\n")
    told, _ = kagflow("fetch", "tiny", code=6)
    assert "missing or changed" in told["error"]
    manifest = json.loads((data / "manifest.json").read_text())
    del manifest["files"]["train.csv"]
    (data / "manifest.json").write_text(json.dumps(manifest))
    told, _ = kagflow("fetch", "tiny", code=6)
    assert "pair 1: 4096 9 ends at pixel 4104" in told["error"]
    assert "dirt: skip" in told["hint"]
    yaml = folder / "competitions/tiny/competition.yaml"
    yaml.write_text(yaml.read_text() + "dirt: skip\n")
    _, said = kagflow("fetch", "tiny")
    assert "1 images are in no fold" in said
    assert "label rows that cannot be used" in said
    assert str(data / "dirt.csv") in said.replace("\n", "")

"""kagflow check on recipes: all faults of all files at once, where they stand, as JSON too."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from kagflow.cli.app import main

COMPETITION = """\
slug: steel
title: Steel
classes: ["1", "2"]
default_recipe: base
"""
BASE = 'model: {target: "steel.models:net"}\nbatch: 2\n'
MODELS = (
    "from torch import nn\n\ndef net(*, classes, width=8):\n    return nn.Conv2d(1, classes, 3)\n"
)


@pytest.fixture
def steel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Return a competition's folder that is sound and not fetched."""
    folder = tmp_path / "competitions" / "steel"
    (folder / "recipes").mkdir(parents=True)
    (folder / "competition.yaml").write_text(COMPETITION)
    (folder / "models.py").write_text(MODELS)
    (folder / "recipes" / "base.yaml").write_text(BASE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    yield folder
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


def test_what_is_sound_is_said_in_one_line(steel: Path, check: Any) -> None:
    out, _ = check()
    assert out == "steel: 2 files without a fault\n"
    told = check("--json")
    assert told == {
        "schema": 1,
        "competition": "steel",
        "checked": ["competition.yaml", "recipes/base.yaml"],
        "faults": [],
    }
    assert check("base", "batch=3", "--json")["checked"] == ["recipes/base.yaml"]


def test_all_faults_of_all_files_at_once_with_their_places(steel: Path, check: Any) -> None:
    (steel / "recipes" / "base.yaml").write_text(
        'model: {target: "steel.models:net"}\nepoch: 3\nloss:\n  target: bcee\n'
    )
    (steel / "recipes" / "other.yaml").write_text("model:\n  target: smp\n  kwargs: {arch: Fpnn}\n")
    (steel / "recipes" / "torn.yaml").write_text("model: [\n")
    (steel / "competition.yaml").write_text(
        COMPETITION + "metric: dise\nmini: {generate: 'x:y', recipe: nil}\n"
    )
    told = check("--json", code=2)
    assert set(told) == {
        "schema", "competition", "checked", "faults", "error", "hint", "exit_code",
    }  # fmt: skip
    assert {key for one in told["faults"] for key in one} == {
        "file", "line", "key", "what", "mend", "trace",
    }  # fmt: skip
    assert [(one["file"], one["line"], one["key"]) for one in told["faults"]] == [
        ("competition.yaml", 5, "metric"),
        ("competition.yaml", 6, "mini.generate"),
        ("competition.yaml", 6, "mini.recipe"),
        ("recipes/base.yaml", 2, "epoch"),
        ("recipes/base.yaml", 4, "loss.target"),
        ("recipes/other.yaml", 3, "model.kwargs.arch"),
        ("recipes/torn.yaml", None, ""),
    ]
    assert told["error"] == "steel: 7 faults in 4 files"
    out, err = check(code=2)
    assert (
        "recipes/base.yaml:2  epoch\n    unknown key 'epoch'\n    -> did you mean 'epochs'?" in out
    )
    assert "error: steel: 7 faults in 4 files" in err
    assert "Traceback" not in err + out


def test_a_faulty_competition_hides_no_recipe(steel: Path, check: Any) -> None:
    (steel / "competition.yaml").write_text(COMPETITION + "clases: 3\nfolds: 1\n")
    (steel / "recipes" / "base.yaml").write_text("model: {target: smpp}\n")
    told = check("--competition", "steel", "--json", code=2)
    assert [(one["file"], one["key"]) for one in told["faults"]] == [
        ("competition.yaml", "folds"),
        ("competition.yaml", "clases"),
        ("recipes/base.yaml", "model.target"),
    ]


def test_words_are_checked_as_the_file_is(steel: Path, check: Any) -> None:
    words = ("base", "batch=0,1", "model.kwargs.widht=3", "loss={target: bcee}")
    faults = check(*words, "--json", code=2)["faults"]
    assert sorted((one["file"], one["key"]) for one in faults) == [
        ("batch=0", "batch"),
        ("loss={target: bcee}", "loss.target"),
        ("model.kwargs.widht=3", "model.kwargs.widht"),
    ]


def test_a_recipe_that_is_not_there_names_the_nearest(steel: Path, check: Any) -> None:
    out, _ = check("bas", code=2)
    assert "no recipe 'bas'" in out
    assert "did you mean 'base'?" in out
    assert check("competitions/steel/recipes/base.yaml", "--json")["faults"] == []


def test_a_competition_in_a_recipes_place_is_told(steel: Path, check: Any) -> None:
    hint = "kagflow check --competition steel"
    assert check("steel", "--json", code=2)["hint"] == hint
    # Which competition is meant is not known either where there are two.
    other = steel.parent / "rails"
    other.mkdir()
    (other / "competition.yaml").write_text(COMPETITION)
    told = check("steel", "--json", code=2)
    assert told["error"] == "'steel' is a competition, and check takes recipes"
    assert told["hint"] == hint
    (steel / "recipes" / "steel.yaml").write_text(BASE)
    told = check("steel", "--competition", "steel", "--json")
    assert told["checked"] == ["recipes/steel.yaml"]


def test_an_error_in_the_users_file_shows_its_own_lines_alone(steel: Path, check: Any) -> None:
    (steel / "models.py").write_text("import torch\nfrom torch import nothing_of_the_kind\n")
    out, err = check(code=2)
    assert '|   File "competitions/steel/models.py", line 2, in <module>' in out
    assert "| ImportError: cannot import name 'nothing_of_the_kind'" in out
    assert "kagflow/resolve.py" not in out + err


def test_a_csv_is_a_submission_and_is_checked_alone(steel: Path, check: Any) -> None:
    out, _ = check("out+lr=1.csv", code=2)
    assert "unknown key 'out+lr'" in out
    Path("out+lr=1.csv").write_text("ImageId,EncodedPixels\n")
    _, err = check("out+lr=1.csv", code=2)
    assert "steel has not been fetched" in err
    _, err = check("out.csv", "base", code=2)
    assert "out.csv is a submission, which is checked alone" in err
    Path("plain").write_text("ImageId,EncodedPixels\n")
    _, err = check("plain", code=2)
    assert "steel has not been fetched" in err

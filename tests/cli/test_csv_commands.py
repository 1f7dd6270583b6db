"""score and check as a person meets them: exit codes, JSON, words."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from kagflow.cli import app
from kagflow.durable import write_json

HEADER = "ImageId,ClassId,EncodedPixels"
YAML = """slug: tiles
title: Tiles
classes: ["1", "2"]
height: 2
width: 3
default_recipe: base
"""


@pytest.fixture
def tiles(tmp_path, monkeypatch):
    """Be in a workspace with one fetched competition of images 2x3."""
    monkeypatch.chdir(tmp_path)
    folder, data = tmp_path / "competitions" / "tiles", tmp_path / "data" / "tiles"
    folder.mkdir(parents=True)
    data.mkdir(parents=True)
    (folder / "competition.yaml").write_text(YAML)
    write_json(data / "manifest.json", {"profile": "kaggle"})
    (data / "sample_submission.csv").write_text(f"{HEADER}\na,1,\na,2,\nb,1,\nb,2,\n")
    return tmp_path


@pytest.fixture
def call(tiles, capsys):
    """Run a command with --json; return its exit code and what it printed."""

    def run(*words):
        with pytest.raises(SystemExit) as ended:
            app.main(["--json", *words])
        printed = capsys.readouterr()
        (line,) = printed.out.splitlines()
        return ended.value.code, json.loads(line), printed.err

    return run


def test_check_lists_every_fault_and_ends_with_6(tiles, call, capsys):
    path = tiles / "s.csv"
    path.write_text(f"{HEADER}\na,1,6 2 0 1\na,1,\nb,1,\nc,1,\n")
    code, value, _ = call("check", str(path))
    assert code == 6
    assert value["valid"] is False
    assert value["exit_code"] == 6
    assert [(fault["row"], fault["kind"]) for fault in value["faults"]] == [
        (2, "rle"), (2, "rle"), (3, "twice"), (5, "extra"), (0, "missing"), (0, "missing"),
    ]  # fmt: skip
    with pytest.raises(SystemExit) as ended:
        app.main(["check", str(path)])
    told = capsys.readouterr()
    assert ended.value.code == 6
    assert len(told.out.splitlines()) == 6
    assert "6 faults (rle 2, missing 2, twice 1, extra 1)" in told.err


def test_check_passes_what_is_valid(tiles, call):
    path = tiles / "s.csv"
    path.write_text(f"{HEADER}\na,1,1 6\na,2,\nb,1,\nb,2,\n")
    code, value, _ = call("check", str(path))
    assert (code, value["valid"], value["faults"], value["unknown_sizes"]) == (0, True, [], 0)


def test_score_by_usage_with_its_classes(tiles, call):
    solution, path = tiles / "truth.csv", tiles / "s.csv"
    solution.write_text(
        f"{HEADER},Usage\na,1,1 6,Public\na,2,,Public\nb,1,,Private\nb,2,,Private\n"
    )
    path.write_text("ImageId_ClassId,EncodedPixels\na_1,1 3\na_2,\nb_1,\nb_2,1 1\n")
    code, value, _ = call("score", str(path), "--truth", str(solution))
    assert code == 0
    assert value["classes"] == ["1", "2"]
    assert {part: one["value"] for part, one in value["scores"].items()} == pytest.approx(
        {"all": (2 / 3 + 2) / 4, "Public": (2 / 3 + 1) / 2, "Private": 0.5}
    )
    assert value["scores"]["all"]["per_class"] == pytest.approx([(2 / 3 + 1) / 2, 0.5])


def test_score_counts_images_that_labels_do_not_list_as_clean_and_says_so(tiles, call):
    solution, path = tiles / "truth.csv", tiles / "s.csv"
    solution.write_text(f"{HEADER}\na,1,1 6\n")
    path.write_text(f"{HEADER}\na,1,1 6\na,2,\nb,1,\nb,2,1 1\n")
    code, value, told = call("score", str(path), "--truth", str(solution))
    assert (code, value["counted_clean"], value["scores"]["all"]["value"]) == (0, 1, 0.75)
    assert "1 images that it lacks are counted as clean" in told
    solution.write_text(f"{HEADER}\na,1,1 6\na,2,\n")
    code, value, _ = call("score", str(path), "--truth", str(solution))
    assert code == 6
    assert "b class 1 is not asked for" in value["error"]
    solution.write_text(f"{HEADER}\nq,1,1 6\n")
    assert call("score", str(path), "--truth", str(solution))[0] == 6


def test_score_by_the_function_that_the_guide_shows(tiles, call):
    guide = Path(__file__).parents[2] / "docs" / "how-to" / "add-your-own-code.md"
    (code,) = re.findall(r"```python\n# \S+/metrics\.py\n(.+?)```", guide.read_text(), re.DOTALL)
    folder = tiles / "competitions" / "tiles"
    (folder / "metrics.py").write_text(code)
    (folder / "competition.yaml").write_text(YAML + 'metric: "tiles.metrics:f2"\n')
    solution, path = tiles / "truth.csv", tiles / "s.csv"
    solution.write_text(f"{HEADER}\na,1,1 6\na,2,\nb,1,\nb,2,1 2\n")
    path.write_text(f"{HEADER}\na,1,1 3\na,2,\nb,1,5 1\nb,2,\n")
    scores = call("score", str(path), "--truth", str(solution))[1]["scores"]["all"]
    assert scores["value"] == pytest.approx((15 / 27 + 1) / 4)
    assert scores["per_class"] == pytest.approx([15 / 54, 0.5])

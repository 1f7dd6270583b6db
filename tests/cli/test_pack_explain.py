"""kagflow pack --explain: a verdict on all that is asked for, before anything is trained."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from kagflow.cli.app import main

SHAPES = Path(__file__).parents[1] / "competitions" / "shapes"
MODEL = "segmentation-models-pytorch"


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    shutil.copytree(
        SHAPES, tmp_path / "competitions" / "shapes", ignore=shutil.ignore_patterns("__pycache__")
    )
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def explain(root: Path, capsys: pytest.CaptureFixture[str]) -> Any:
    def run(*words: str, code: int = 0) -> Any:
        with pytest.raises(SystemExit) as stopped:
            main([*words, "--profile", "local", "pack", "shapes", "--explain"])
        out, err = capsys.readouterr()
        assert (stopped.value.code or 0) == code, err
        return json.loads(out) if "--json" in words else out

    return run


def require(root: Path, text: str) -> None:
    with (root / "competitions" / "shapes" / "competition.yaml").open("a") as file:
        file.write(f"\nrequires: [{text}]\n")


def test_each_distribution_is_in_or_out_and_says_for_whom(explain: Any) -> None:
    told = explain("--json")
    rows = {one["name"]: one for one in told["distributions"]}
    assert {name for name, one in rows.items() if one["verdict"] == "in"} == {
        "kagflow_runtime", MODEL}  # fmt: skip
    assert rows["timm"]["where"] == told["image"] == "kaggle-image-v170-approx"
    assert rows["timm"]["verdict"] == "out"
    assert any(text.startswith(f"{MODEL} asks for timm") for text in rows["timm"]["why"])
    assert (told["resolver"], told["offline"]) == ("local", "KAGFLOW_OFFLINE is set")
    assert told["next"] == "kagflow pack --profile local"


def test_what_blocks_is_shown_beside_the_rest_and_ends_as_packing_would(
    root: Path, explain: Any
) -> None:
    require(root, "'einops<0.1', 'pandas'")
    shown = explain(code=6)
    assert "einops<0.1" in shown
    assert "blocked" in shown
    assert "never replaced" in shown
    assert MODEL in shown
    told = explain("--json", code=6)
    assert "allow_replace: [einops]" in told["hint"]

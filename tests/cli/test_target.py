"""kagflow target as typed: the shipped image, a probe of the embedded Kaggle, what moved."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from kagflow.cli.app import main
from kagflow.rehearse import sandbox, server, settings

SHAPES = Path(__file__).parents[1] / "competitions" / "shapes"
SHIPPED = "kaggle-image-v170-approx"


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Any:
    folder = tmp_path_factory.mktemp("target")
    shutil.copytree(
        SHAPES, folder / "competitions" / "shapes", ignore=shutil.ignore_patterns("__pycache__")
    )
    yield folder
    server.stop(folder / ".kagflow" / "local" / "kaggle")


@pytest.fixture
def kagflow(root: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Any:
    monkeypatch.chdir(root)

    def run(*words: str, code: int = 0) -> Any:
        with pytest.raises(SystemExit) as stopped:
            main(["--json", "--profile", "local", "target", *words])
        out, err = capsys.readouterr()
        assert (stopped.value.code or 0) == code, err
        return json.loads(out)

    return run


def test_the_shipped_image_is_in_use_until_one_is_probed(kagflow: Any) -> None:
    told = kagflow("show", "--find", "torch")
    assert (told["name"], told["in_use"], told["approximate"]) == (SHIPPED, SHIPPED, True)
    assert told["distributions"]["torch"] == "2.10.0+cu128"
    assert (told["digest"], told["probed_images"]) == ("", [])


def test_wrong_words_name_the_right_ones(kagflow: Any) -> None:
    assert "target diff A B" in kagflow("look", code=2)["hint"]
    assert SHIPPED in kagflow("show", "--name", "other", code=2)["hint"]


def test_a_dry_run_says_the_price_and_starts_nothing(kagflow: Any, root: Path) -> None:
    told = kagflow("probe", "--accelerator", "gpu", "--dry-run")
    assert "GPU hours" in told["plan"]["price"]
    assert told["next"] == "kagflow target probe --accelerator NvidiaTeslaT4 --profile local"
    assert not (root / ".kagflow" / "local" / "kaggle").exists()


def test_a_probe_is_kept_used_and_compared(kagflow: Any, root: Path) -> None:
    if not sandbox.probe_layers():
        pytest.skip("no sandbox works on this machine")
    settings.change(root / ".kagflow/local/kaggle", image_digest="kaggle/python@sha256:37c6")
    told = kagflow("probe", "--accelerator", "cpu")
    assert told["digest"] == "kaggle/python@sha256:37c6"
    assert not told["approximate"]
    assert told["distributions"]["numpy"]
    assert told["accelerator"] == "cpu"
    name = told["name"]
    kept = json.loads((root / ".kagflow/local/targets" / f"{name}.json").read_text())
    assert "numpy" in kept["headers"]["numpy"]["tops"]
    assert any(text.startswith("numpy") for text in kept["headers"]["pandas"]["requires"])
    assert "PATH" not in json.dumps(kept)
    assert kagflow("show", "--accelerator", "cpu")["in_use"] == name
    # The competition runs on a GPU, whose image was not looked at.
    assert kagflow("show", "--accelerator", "gpu")["in_use"] == SHIPPED
    moved = kagflow("diff", SHIPPED, name)
    assert moved["facts"]["python"][0] == "3.12"
    assert moved["distributions"]["torch"][0] == "2.10.0+cu128"

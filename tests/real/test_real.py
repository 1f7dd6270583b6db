"""The whole road on real images, scored on the public half of a hidden part.

The private half stays sealed: it is neither scored nor stored here.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from kagflow.cli.app import main
from kagflow.rehearse import sandbox, server
from kagflow.task.score import score_files

pytestmark = [pytest.mark.real, pytest.mark.timeout(1500)]
COMPETITIONS = Path(__file__).parents[1] / "competitions"


class Road:
    """Type commands in one workspace on the local profile."""

    def __init__(self, root: Path, name: str, capsys: pytest.CaptureFixture[str]) -> None:
        self.root, self.name, self.capsys = root, name, capsys
        (root / "competitions").mkdir()
        shutil.copytree(COMPETITIONS / name, root / "competitions" / name)

    def run(self, *words: str) -> Any:
        with pytest.raises(SystemExit) as stopped:
            main(["--json", "--profile", "local", *words])
        out, err = self.capsys.readouterr()
        assert (stopped.value.code or 0) == 0, err
        return json.loads(out)

    def walk(self, data: Path, runs: list[list[str]]) -> dict[str, Any]:
        """Hide a part, train the given runs, submit; return the public half's score in detail."""
        self.run("local", "add", self.name, "--data", str(data), "--holdout", "0.3", "--sealed")
        self.run("fetch", self.name)
        for words in runs:
            self.run("train", self.name, *words)
        told = self.run("submit", self.name, "--yes")
        assert told["submission"]["private"] is None
        store = self.root / ".kagflow" / "local" / "kaggle"
        slug = told["plan"]["slug"]
        solution = store / "competitions" / slug / "solution.csv"
        spec = self._spec()
        scored = [
            score_files(file, solution, spec)["Public"]
            for file in store.glob("**/submission.csv")
            if _images(file) == _images(solution)
        ]
        assert len(scored) == 1, "one file answers for the whole hidden part"
        assert told["submission"]["public"] == pytest.approx(scored[0].value, abs=1e-5)
        return {"ours": scored[0], "submission": told["submission"]}

    def _spec(self) -> Any:
        from kagflow.config import load_competition

        return load_competition(COMPETITIONS / self.name).task()


def _images(path: Path) -> set[str]:
    return {line.split(",")[0] for line in path.read_text().splitlines()[1:]}


@pytest.fixture
def road(
    request: pytest.FixtureRequest,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> Any:
    if not sandbox.probe_layers():
        pytest.skip("no sandbox works on this machine")
    monkeypatch.chdir(tmp_path)
    yield Road(tmp_path, request.param, capsys)
    server.stop(tmp_path / ".kagflow" / "local" / "kaggle")


def _tell(capsys: pytest.CaptureFixture[str], name: str, found: dict[str, Any]) -> None:
    ours, row = found["ours"], found["submission"]
    with capsys.disabled():
        print(
            f"\n{name}: public half, {ours.images} images: {ours.value:.4f}, all-empty "
            f"{ours.floor:.4f}, non-empty Dice {ours.nonempty:.3f}; CV {row['cv_naive']:.4f} tuned "
            f"on the same images, {row['cv_label']}"
        )


@pytest.mark.parametrize("road", ["magnetic_tile"], indirect=True)
def test_magnetic_tile_beats_the_all_empty_floor(
    road: Road, shared_data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    runs = [["recipe=fpn", "fold=0"], ["recipe=gate", "fold=0"]]
    found = road.walk(shared_data / "magnetic-tile", runs)
    _tell(capsys, "magnetic-tile", found)
    assert found["ours"].value > found["ours"].floor


@pytest.mark.parametrize("road", ["neu_steel"], indirect=True)
def test_neu_steel_beats_the_floor_and_finds_its_defects(
    road: Road, shared_data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    found = road.walk(shared_data / "neu-steel", [["recipe=unet", "fold=0"]])
    _tell(capsys, "neu-steel", found)
    assert found["ours"].value > found["ours"].floor
    assert found["ours"].nonempty >= 0.70

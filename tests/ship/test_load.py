"""What goes to another machine to train there, and the workspace that it makes."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from kagflow import resources
from kagflow.errors import DataError, UsageError
from kagflow.ship import load, unload, whole
from kagflow.workspace import Workspace


def write(path: Path, text: str = "x") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def checkpoint(run: Path, step: int, text: str) -> None:
    write(run / f"ckpt-{step}.pt", text)
    digest = hashlib.sha256(text.encode()).hexdigest()
    write(run / f"ckpt-{step}.json", json.dumps({"sha256": digest, "step": step, "epoch": 0}))


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    made = Workspace(tmp_path / "here", "local")
    write(made.root / "competitions" / "tiny" / "competition.yaml")
    write(made.root / "competitions" / "tiny" / "models.py", "code")
    write(made.root / "competitions" / "tiny" / "LOG.md")
    write(made.data("tiny") / "manifest.json", "{}")
    write(made.data("tiny") / "folds.csv", "folds")
    write(made.data("tiny") / "train_images" / "a.png")
    run = made.runs("tiny") / "base" / "fold0"
    write(run / "config.yaml", "recipe")
    write(run / ".lock")
    checkpoint(run, 5, "older")
    checkpoint(run, 10, "newer")
    return made


def collect(workspace: Workspace, root: Path, **changes):
    given = {"code": {}, "weights": (), "runs": [workspace.runs("tiny") / "base" / "fold0"]}
    folder = workspace.root / "competitions" / "tiny"
    files = load.places(workspace, folder, **{**given, **changes})
    return load.build_load(root, files, data=load.data_place(workspace, "tiny"))


def test_a_load_becomes_the_same_workspace_elsewhere(workspace: Workspace, tmp_path: Path) -> None:
    part = collect(workspace, tmp_path / "loads")
    there = Workspace(tmp_path / "there", "local")
    images = workspace.data("tiny")
    unload.unload(part.path, there.root, images=images)
    assert (there.root / "competitions" / "tiny" / "models.py").read_text() == "code"
    assert (there.data("tiny") / "folds.csv").read_text() == "folds"
    assert not (there.data("tiny") / "folds.csv").is_symlink()
    assert (there.data("tiny") / "train_images" / "a.png").is_file()
    run = there.runs("tiny") / "base" / "fold0"
    assert sorted(one.name for one in run.iterdir()) == [
        "ckpt-10.json",
        "ckpt-10.pt",
        "config.yaml",
    ]


def test_a_damaged_checkpoint_stays_and_the_one_before_goes(
    workspace: Workspace, tmp_path: Path
) -> None:
    run = workspace.runs("tiny") / "base" / "fold0"
    (run / "ckpt-10.pt").write_text("torn")
    assert load.checkpoint_step(run) == 5
    part = collect(workspace, tmp_path / "loads")
    names = {Path(place).name for place in part.manifest["places"]}
    assert "ckpt-5.pt" in names
    assert "ckpt-10.pt" not in names


def test_the_same_files_are_the_same_load(workspace: Workspace, tmp_path: Path) -> None:
    first = collect(workspace, tmp_path / "loads")
    assert collect(workspace, tmp_path / "loads").path == first.path
    (workspace.data("tiny") / "folds.csv").write_text("others")
    assert collect(workspace, tmp_path / "loads").hash != first.hash


def test_a_damaged_load_makes_no_workspace(workspace: Workspace, tmp_path: Path) -> None:
    part = collect(workspace, tmp_path / "loads")
    (part.path / part.manifest["places"]["competitions/tiny/models.py"]).write_text("evil")
    assert unload.main([str(part.path), str(tmp_path / "there")]) == DataError.exit_code
    assert not (tmp_path / "there").exists()


@pytest.mark.parametrize("text", ["/data/start.pt", "../start.pt"])
def test_weights_of_another_place_do_not_travel(
    workspace: Workspace, tmp_path: Path, text: str
) -> None:
    with pytest.raises(UsageError, match="another machine"):
        collect(workspace, tmp_path / "loads", weights=[text])


def test_the_whole_wheel_is_the_same_each_time_and_runs(tmp_path: Path) -> None:
    wheel = whole.build_whole(tmp_path / "one")
    again = whole.build_whole(tmp_path / "two")
    assert wheel.read_bytes() == again.read_bytes()
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(tmp_path / "site")
    competitions = {path.parent.name for path in resources.competitions().glob("*/*.yaml")}
    assert {one.name for one in (tmp_path / "site/kagflow/competitions").iterdir()} == competitions
    code = "import kagflow, kagflow.resources as r; print(kagflow.__file__, r.templates())"
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path / "site",
        capture_output=True,
        text=True,
        check=True,
    )
    inside, templates = done.stdout.split()
    assert inside == str(tmp_path / "site/kagflow/__init__.py")
    assert templates == str(tmp_path / "site/kagflow/templates")


def test_training_asks_for_no_client_and_no_server() -> None:
    asked = " ".join(whole.requirements())
    assert "torch>=" in asked
    assert not any(name in asked for name in ("kaggle", "starlette", "uvicorn", "jinja2"))

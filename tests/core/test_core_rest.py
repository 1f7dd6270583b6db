from __future__ import annotations

import sys
from pathlib import Path

import pytest

from kagflow import process, resources, workspace
from kagflow.errors import LocalError, UsageError
from kagflow.fingerprint import load_snapshot


def test_a_failed_command_shows_its_output() -> None:
    with pytest.raises(LocalError, match="no good"):
        process.run([sys.executable, "-c", "import sys; sys.exit('no good')"])
    done = process.run([sys.executable, "-c", "print(input())"], stdin="hej")
    assert (done.returncode, done.stdout) == (0, "hej\n")


def test_a_missing_or_late_command_is_a_local_error() -> None:
    with pytest.raises(LocalError, match="not installed"):
        process.run(["no-such-command-here"])
    with pytest.raises(LocalError, match="longer than"):
        process.run([sys.executable, "-c", "import time; time.sleep(9)"], timeout=0.2)


def test_the_workspace_is_the_nearest_parent_that_is_one(tmp_path: Path) -> None:
    (tmp_path / "competitions").mkdir()
    inner = tmp_path / "a" / "b"
    inner.mkdir(parents=True)
    assert workspace.find(inner, "kaggle").root == tmp_path.resolve()
    with pytest.raises(UsageError, match="unknown profile"):
        workspace.find(inner, "kagle")


def test_profiles_never_share_a_folder(tmp_path: Path) -> None:
    real, local = (workspace.Workspace(tmp_path, one) for one in ("kaggle", "local"))
    for place in ("data", "runs", "ensembles", "packs"):
        one, two = getattr(real, place)("steel"), getattr(local, place)("steel")
        assert one != two
        assert (tmp_path / ".kagflow" / "local") in two.parents


def test_the_active_competition_is_remembered(tmp_path: Path) -> None:
    place = workspace.Workspace(tmp_path, "local")
    assert place.active() is None
    place.set_active("steel")
    assert place.active() == "steel"
    assert workspace.Workspace(tmp_path, "kaggle").active() is None


def test_the_shipped_snapshot_is_labelled_approximate() -> None:
    image = load_snapshot()
    assert image.approximate
    assert image.python == "3.12"
    assert len(image.distributions) == 919
    assert image.public_version("Torch") == "2.10.0"
    assert image.public_version("segmentation_models_pytorch") is None
    with pytest.raises(UsageError, match="no image snapshot"):
        load_snapshot("v171")


def test_resources_are_found_in_a_checkout() -> None:
    assert (resources.templates() / "kernel").is_dir()
    assert any(resources.competitions().glob("*/competition.yaml"))

"""What a wheel of kagflow holds: the package, templates, competitions, snapshots, nothing else."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def names(tmp_path_factory: pytest.TempPathFactory) -> set[str]:
    out = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(out)]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    (wheel,) = out.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        return {name for name in archive.namelist() if ".dist-info/" not in name}


def tracked(*folders: str) -> set[str]:
    done = subprocess.run(
        ["git", "ls-files", *folders], cwd=ROOT, capture_output=True, text=True, check=False
    )
    if done.returncode:
        pytest.skip("not a git checkout")
    return set(done.stdout.split())


def test_the_wheel_holds_exactly_the_repositorys_files(names: set[str]) -> None:
    package = tracked("kagflow")
    moved = {f"kagflow/{name}" for name in tracked("templates", "competitions")}
    assert names == package | moved


def test_resources_are_found_in_an_installed_wheel(names: set[str]) -> None:
    assert "kagflow/templates/kernel/kernel.py.j2" in names
    assert "kagflow/competitions/severstal/competition.yaml" in names
    assert any(name.startswith("kagflow/snapshots/") for name in names)

"""Hosts of notebooks, faked: where storage and secrets are, and how commands run in a cell."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
import types
from pathlib import Path

import pytest

from kagflow import hosted, process
from kagflow.errors import LocalError


@pytest.fixture
def colab(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Stand in for Colab's own modules; return what is asked of them."""
    asked: list[str] = []
    drive = types.ModuleType("google.colab.drive")
    drive.mount = lambda place: asked.append(f"mount {place}")  # type: ignore[attr-defined]
    drive.flush_and_unmount = lambda: asked.append("unmount")  # type: ignore[attr-defined]
    package = types.ModuleType("google.colab")
    package.__spec__ = types.SimpleNamespace(name="google.colab")  # type: ignore[assignment]
    package.drive = drive  # type: ignore[attr-defined]
    package.userdata = types.SimpleNamespace(get=lambda name: f"secret of {name}")  # type: ignore[attr-defined]
    google = types.ModuleType("google")
    google.__path__ = []  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "google", google)
    monkeypatch.setitem(sys.modules, "google.colab", package)
    monkeypatch.setattr(hosted, "_DRIVE", tmp_path / "drive")
    return asked


def test_a_folder_of_your_own_wins(
    colab: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KAGFLOW_STORAGE", str(tmp_path / "disk"))
    assert hosted.storage() == tmp_path / "disk"
    assert (tmp_path / "disk").is_dir()
    assert hosted.remount(tmp_path / "disk") == tmp_path / "disk"
    assert colab == []


def test_colab_mounts_its_drive_and_again_before_the_last_look(
    colab: list[str], tmp_path: Path
) -> None:
    place = hosted.storage()
    assert place == tmp_path / "drive" / "MyDrive" / "kagflow"
    assert hosted.remount(place) == place
    mount = f"mount {tmp_path / 'drive'}"
    assert colab == [mount, "unmount", mount]


def test_kaggle_keeps_what_is_in_working_and_attaches_what_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hosted, "_KAGGLE", tmp_path)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "temp"))
    (tmp_path / "working").mkdir()
    (tmp_path / "input" / "my-notebook" / "kagflow-storage").mkdir(parents=True)
    own = hosted.storage()
    assert own == tmp_path / "working" / "kagflow-storage"
    assert hosted.earlier(own) == [own, tmp_path / "input" / "my-notebook" / "kagflow-storage"]
    before = Path.cwd()
    try:
        assert hosted.enter() == tmp_path / "temp" / "kagflow"
    finally:
        os.chdir(before)


def test_without_storage_the_error_names_the_variable(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hosted, "_KAGGLE", tmp_path)
    with pytest.raises(LocalError) as caught:
        hosted.storage()
    assert caught.value.hint == "set KAGFLOW_STORAGE=FOLDER"


def test_the_hosts_secret_becomes_the_token(
    colab: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KAGGLE_API_TOKEN", "mine")
    assert hosted.take_secret() == "the environment"
    monkeypatch.delenv("KAGGLE_API_TOKEN")
    assert hosted.take_secret() == "Colab's secrets"
    assert os.environ.pop("KAGGLE_API_TOKEN") == "secret of KAGGLE_API_TOKEN"


def test_own_code_is_brought_from_the_storage(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "disk" / "competitions" / "steel").mkdir(parents=True)
    (tmp_path / "disk" / "competitions" / "steel" / "models.py").write_text("x = 1\n")
    monkeypatch.chdir(tmp_path)
    assert hosted.bring_code(tmp_path / "disk") == ["steel"]
    assert (tmp_path / "competitions" / "steel" / "models.py").read_text() == "x = 1\n"
    assert hosted.runs() == tmp_path / "runs"
    monkeypatch.setenv("KAGFLOW_PROFILE", "local")
    assert hosted.runs() == tmp_path / ".kagflow" / "local" / "runs"


def test_a_commands_lines_come_as_it_says_them() -> None:
    code = "import sys; print('one', flush=True); print('two', file=sys.stderr); sys.exit(3)"
    said: list[str] = []
    assert process.stream([sys.executable, "-c", code], said.append) == 3
    assert said == ["one", "two"]
    with pytest.raises(LocalError, match="kagflow chekc: exit status 2"):
        hosted.kagflow("chekc", say=said.append)


def test_an_interrupt_goes_on_to_the_command_whose_last_lines_are_heard() -> None:
    code = (
        "import time\n"
        "print('begun', flush=True)\n"
        "try: time.sleep(60)\n"
        "except KeyboardInterrupt: print('saved', flush=True)\n"
    )
    said: list[str] = []

    def say(line: str) -> None:
        said.append(line)
        if line == "begun":
            interrupt = lambda: (time.sleep(0.2), os.kill(os.getpid(), signal.SIGINT))  # noqa: E731
            threading.Thread(target=interrupt).start()

    with pytest.raises(KeyboardInterrupt):
        process.stream([sys.executable, "-c", code], say)
    assert said == ["begun", "saved"]

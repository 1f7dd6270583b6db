"""What a notebook on a hosted GPU needs around kagflow's commands: its storage, secrets, output."""

from __future__ import annotations

import importlib
import importlib.util
import os
import shlex
import shutil
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from kagflow import process, workspace
from kagflow.errors import LocalError

# A folder of your own that outlives the machine; wins over what the host offers.
STORAGE = "KAGFLOW_STORAGE"
TOKEN = "KAGGLE_API_TOKEN"  # noqa: S105 - the name of a secret, not one
_DRIVE = Path("/content/drive")
_KAGGLE = Path("/kaggle")


def storage() -> Path:
    """Return the folder that outlives this machine, mounting it where that is to be done.

    Colab's is `kagflow` on your Drive; Kaggle's is what a saved version keeps; elsewhere the
    variable KAGFLOW_STORAGE names it. Raises LocalError where there is none.
    """
    if own := os.environ.get(STORAGE):
        return _made(Path(own))
    if drive := _module("google.colab", "drive"):
        drive.mount(str(_DRIVE))
        return _made(_DRIVE / "MyDrive" / "kagflow")
    if (_KAGGLE / "working").is_dir():
        return _made(_KAGGLE / "working" / "kagflow-storage")
    raise LocalError("no storage that outlives this machine", hint=f"set {STORAGE}=FOLDER")


def enter() -> Path:
    """Go where there is room and nothing is kept, and return it: on Kaggle not what it saves."""
    if (_KAGGLE / "working").is_dir():
        os.chdir(_made(Path(tempfile.gettempdir()) / "kagflow"))
    return Path.cwd()


def earlier(own: Path) -> list[Path]:
    """Return where runs of earlier sessions may lie: the storage, and on Kaggle what is attached.

    There a saved version's output cannot be written to, only attached as an input.
    """
    attached = sorted((_KAGGLE / "input").glob("**/kagflow-storage"))
    return [own, *attached]


def remount(own: Path) -> Path:
    """Flush and mount the storage anew where the host can, so that what is read is what it has."""
    drive = None if os.environ.get(STORAGE) else _module("google.colab", "drive")
    if drive is None:
        return own
    drive.flush_and_unmount()
    return storage()


def take_secret() -> str:
    """Put the host's secret KAGGLE_API_TOKEN where kagflow finds it; say where it came from."""
    if os.environ.get(TOKEN):
        return "the environment"
    found = ""
    if userdata := _module("google.colab", "userdata"):
        found = "Colab's secrets"
        os.environ[TOKEN] = userdata.get(TOKEN)
    elif secrets := _module("kaggle_secrets", "UserSecretsClient"):
        found = "Kaggle's secrets"
        os.environ[TOKEN] = secrets().get_secret(TOKEN)
    return found or "nowhere: public data and --profile local need none"


def bring_code(own: Path) -> list[str]:
    """Copy the storage's `competitions/` here, so that your own recipes and code are found."""
    found = sorted(one for one in (own / "competitions").glob("*") if one.is_dir())
    for folder in found:
        shutil.copytree(folder, Path("competitions") / folder.name, dirs_exist_ok=True)
    return [folder.name for folder in found]


def runs() -> Path:
    """Return the folder of the workspace's runs, of every competition."""
    profile = os.environ.get("KAGFLOW_PROFILE") or workspace.PROFILES[0]
    return workspace.find(Path.cwd(), profile).home / "runs"


def kagflow(words: str, *, say: Callable[[str], None] = print) -> None:
    """Run a kagflow command, its lines shown as they come.

    An interrupt is passed on, so that a training saves its state before the cell ends. Raises
    LocalError where the command fails.
    """
    argv = [sys.executable, "-m", "kagflow.cli.app", *shlex.split(words)]
    if status := process.stream(argv, say):
        raise LocalError(f"kagflow {words}: exit status {status}; the lines above say why")


def _made(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def _module(package: str, name: str) -> Any:
    """Return a host's own module or class, None on any other machine."""
    try:
        if importlib.util.find_spec(package) is None:
            return None
    except ModuleNotFoundError:
        return None
    return getattr(importlib.import_module(package), name)

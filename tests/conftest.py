"""Keep every test away from the user's own home, credentials and network settings."""

from __future__ import annotations

import os
import signal
from pathlib import Path

# Before torch loads: workers that share a machine spin in each other's way with more threads.
os.environ.setdefault("OMP_NUM_THREADS", "1")
# For fixtures that outlive a test: no index is asked but where a test serves one.
os.environ["KAGFLOW_OFFLINE"] = "1"

import pytest

# A shell that starts this run in the background has it, and all that it starts, ignore Ctrl-C.
signal.signal(signal.SIGINT, signal.default_int_handler)

STRAY = ("KAGGLE_", "KAGFLOW_", "http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY", "VERBOSE")


@pytest.fixture(autouse=True)
def _own_home(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    home = tmp_path_factory.mktemp("home")
    for name in list(os.environ):
        if name.startswith(STRAY):
            monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("KAGFLOW_HOME", str(home / "state"))
    monkeypatch.setenv("KAGFLOW_CACHE", str(home / "cache"))
    monkeypatch.setenv("KAGFLOW_OFFLINE", "1")
    monkeypatch.setenv("NO_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "200")


@pytest.fixture
def shared_data() -> Path:
    """The folder of real data sets beside the repository."""
    folder = Path(__file__).parents[2] / "shared" / "data"
    if not folder.is_dir():
        pytest.skip("the real data sets are not beside the repository")
    return folder

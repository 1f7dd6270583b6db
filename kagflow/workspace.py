"""Every path that kagflow reads or writes."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path

from kagflow import durable
from kagflow.errors import UsageError

PROFILES = ("kaggle", "local")


@dataclass(frozen=True)
class Workspace:
    """Name the paths of one workspace under one profile."""

    root: Path
    profile: str

    @property
    def home(self) -> Path:
        """Where this profile's data, runs, ensembles and packs live."""
        return self.root if self.profile == "kaggle" else self.root / ".kagflow" / "local"

    @property
    def cache(self) -> Path:
        """Where what can be made again lives."""
        return self.root / ".kagflow" / "cache"

    @property
    def kaggle_store(self) -> Path:
        """Where the embedded Kaggle keeps its state."""
        return self.root / ".kagflow" / "local" / "kaggle"

    @property
    def targets(self) -> Path:
        """Where the images that were probed live."""
        return self.home / "targets"

    @property
    def reports(self) -> Path:
        """Where the pages that `kagflow report` writes live."""
        return self.home / "reports"

    def data(self, competition: str) -> Path:
        """Return the folder of a competition's download."""
        return self.home / "data" / competition

    def runs(self, competition: str) -> Path:
        """Return the folder of a competition's runs."""
        return self.home / "runs" / competition

    def looks(self, competition: str) -> Path:
        """Return the folder of the contact sheets of a competition's recipes."""
        return self.home / "looks" / competition

    def ensembles(self, competition: str) -> Path:
        """Return the folder of a competition's ensembles."""
        return self.home / "ensembles" / competition

    def packs(self, competition: str) -> Path:
        """Return the folder of a competition's packs."""
        return self.home / "packs" / competition

    def away(self, competition: str) -> Path:
        """Return the folder of what was handed over to train elsewhere."""
        return self.home / "away" / competition

    def active(self) -> str | None:
        """Return the competition that was fetched last, None before the first fetch."""
        file = self.home / ".active.json"
        return str(json.loads(file.read_text())["competition"]) if file.is_file() else None

    def set_active(self, competition: str) -> None:
        """Remember the competition that commands without one mean."""
        durable.write_json(self.home / ".active.json", {"competition": competition})


def find(start: Path, profile: str) -> Workspace:
    """Return the workspace around `start`: the nearest parent with competitions/ or .kagflow/.

    Raises UsageError for a profile that does not exist.
    """
    if profile not in PROFILES:
        raise UsageError(f"unknown profile '{profile}'", hint=f"--profile {' or '.join(PROFILES)}")
    start = start.resolve()
    for folder in (start, *start.parents):
        if (folder / "competitions").is_dir() or (folder / ".kagflow").is_dir():
            return Workspace(folder, profile)
    return Workspace(start, profile)


def user_state() -> Path:
    """Return this user's folder for the ledger and history (KAGFLOW_HOME moves it)."""
    import platformdirs

    moved = os.environ.get("KAGFLOW_HOME")
    return Path(moved) if moved else Path(platformdirs.user_data_dir("kagflow"))


def user_cache() -> Path:
    """Return this user's folder for what can be made or downloaded again."""
    import platformdirs

    moved = os.environ.get("KAGFLOW_CACHE")
    return Path(moved) if moved else Path(platformdirs.user_cache_dir("kagflow"))

"""The embedded Kaggle's memory: one SQLite file and plain folders; survives a kill at any point."""

from __future__ import annotations

import contextlib
import secrets
import shutil
import sqlite3
import threading
import zipfile
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from kagflow import durable, sqlite
from kagflow.errors import DataError, RefusedError
from kagflow.rehearse import facts as facts_file
from kagflow.rehearse import settings as settings_file
from kagflow.rehearse.facts import CompetitionFacts
from kagflow.rehearse.settings import Settings

FILE = "kaggle.sqlite3"
SCHEMA = """
CREATE TABLE IF NOT EXISTS meta (key TEXT PRIMARY KEY, value TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS blob (
  token TEXT PRIMARY KEY, name TEXT NOT NULL, size INTEGER NOT NULL,
  done INTEGER NOT NULL DEFAULT 0);
CREATE TABLE IF NOT EXISTS dataset (
  id INTEGER PRIMARY KEY AUTOINCREMENT,
  owner TEXT NOT NULL, slug TEXT NOT NULL, title TEXT NOT NULL,
  subtitle TEXT, description TEXT, license TEXT, private INTEGER NOT NULL, UNIQUE (owner, slug));
CREATE TABLE IF NOT EXISTS dataset_version (
  dataset INTEGER NOT NULL REFERENCES dataset, number INTEGER NOT NULL, notes TEXT,
  status TEXT NOT NULL, created TEXT NOT NULL, bytes INTEGER NOT NULL DEFAULT 0,
  files TEXT NOT NULL, PRIMARY KEY (dataset, number));
CREATE TABLE IF NOT EXISTS kernel (
  id INTEGER PRIMARY KEY AUTOINCREMENT,
  owner TEXT NOT NULL, slug TEXT NOT NULL, title TEXT NOT NULL,
  UNIQUE (owner, slug));
CREATE TABLE IF NOT EXISTS kernel_version (
  id INTEGER PRIMARY KEY AUTOINCREMENT,
  kernel INTEGER NOT NULL REFERENCES kernel, number INTEGER NOT NULL,
  request TEXT NOT NULL, created TEXT NOT NULL, UNIQUE (kernel, number));
CREATE TABLE IF NOT EXISTS session (
  id INTEGER PRIMARY KEY AUTOINCREMENT,
  version INTEGER NOT NULL REFERENCES kernel_version,
  kind TEXT NOT NULL, accelerator TEXT NOT NULL, status TEXT NOT NULL, failure TEXT,
  limit_s REAL NOT NULL, created TEXT NOT NULL, started TEXT, finished TEXT, seconds REAL);
CREATE TABLE IF NOT EXISTS submission (
  ref INTEGER PRIMARY KEY AUTOINCREMENT,
  competition TEXT NOT NULL, user TEXT NOT NULL, version INTEGER NOT NULL,
  session INTEGER REFERENCES session, file_name TEXT NOT NULL, description TEXT NOT NULL,
  status TEXT NOT NULL, error TEXT, public TEXT, private TEXT, bytes INTEGER,
  created TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS final (ref INTEGER PRIMARY KEY REFERENCES submission);
"""
# A session's states before its end.
OPEN = ("QUEUED", "RUNNING")


def now() -> str:
    """Return this moment as ISO text in UTC, which sorts as it passes."""
    return datetime.now(UTC).replace(tzinfo=None).isoformat(timespec="milliseconds")


class Store:
    """Keep competitions, uploads, datasets, kernels, runs and submissions under one folder."""

    def __init__(self, path: Path) -> None:
        self.path = Path(path).resolve()
        self.path.mkdir(parents=True, exist_ok=True)
        self._making = threading.Lock()
        with sqlite.opened(self.path / FILE) as db:
            db.executescript(SCHEMA)
        self.id = self._once("id", secrets.token_hex(8))
        self.token = self._once("token", secrets.token_urlsafe(24))

    @property
    def settings(self) -> Settings:
        """How this embedded Kaggle behaves, as its file says now."""
        return settings_file.read(self.path)

    # -- database

    def write(self) -> contextlib.AbstractContextManager[sqlite3.Connection]:
        """Return a transaction's connection, committed on success."""
        return sqlite.transaction(self.path / FILE)

    def rows(self, sql: str, values: Sequence[Any] = ()) -> list[sqlite3.Row]:
        """Return all rows of a query."""
        with sqlite.opened(self.path / FILE) as db:
            return db.execute(sql, values).fetchall()

    def row(self, sql: str, values: Sequence[Any] = ()) -> sqlite3.Row | None:
        """Return the first row of a query, None when it has none."""
        rows = self.rows(sql, values)
        return rows[0] if rows else None

    def execute(self, sql: str, values: Sequence[Any] = ()) -> int:
        """Run one statement in its own transaction and return the last row's id."""
        with self.write() as db:
            return int(db.execute(sql, values).lastrowid or 0)

    def _once(self, key: str, value: str) -> str:
        # Two processes may open a new store at once: the first value wins for both.
        self.execute("INSERT OR IGNORE INTO meta VALUES (?, ?)", (key, value))
        found = self.row("SELECT value FROM meta WHERE key = ?", (key,))
        assert found is not None
        return str(found["value"])

    # -- competitions

    def competition_folder(self, slug: str) -> Path:
        """Return the folder {facts.json, public/, hidden/, solution.csv} of a competition."""
        return self.path / "competitions" / slug

    def has_competition(self, slug: str) -> bool:
        """Tell whether a competition is registered here, whole."""
        plain = bool(slug) and "/" not in slug and not slug.startswith(".")
        return plain and (self.competition_folder(slug) / "facts.json").is_file()

    def competition(self, slug: str) -> CompetitionFacts:
        """Return a competition's facts, with what the settings override.

        Raises DataError when it is not here.
        """
        facts, rerun = self._facts(slug), self.settings.rerun
        return facts if rerun is None else replace(facts, rerun=rerun)

    def _facts(self, slug: str) -> CompetitionFacts:
        return facts_file.read(self.competition_folder(slug) / "facts.json")

    def competitions(self) -> list[CompetitionFacts]:
        """Return all competitions by slug."""
        folders = sorted((self.path / "competitions").glob("[!.]*"))
        return [self.competition(folder.name) for folder in folders]

    def add_competition(self, facts: CompetitionFacts, folder: Path) -> Path:
        """Copy a prepared folder {public/, hidden/, solution.csv} into place, whole or not at all.

        The same data again changes nothing but the facts. Raises DataError when a part is missing,
        RefusedError when the slug already holds other data: runs scored on it would lie.
        """
        final = self.competition_folder(facts.slug)
        if final.exists():
            return self._refresh_competition(final, facts, folder)
        for part in ("public", "hidden", "solution.csv"):
            if not (folder / part).exists():
                raise DataError(f"{folder}: a competition folder needs '{part}'")
        with durable.staging(final) as staged:
            for part in ("public", "hidden"):
                # Plain copies: a read-only source must not give files that can't be flushed.
                shutil.copytree(folder / part, staged / part, copy_function=shutil.copyfile)
            shutil.copyfile(folder / "solution.csv", staged / "solution.csv")
            facts_file.write(staged / "facts.json", facts)
        return final

    def _refresh_competition(self, final: Path, facts: CompetitionFacts, folder: Path) -> Path:
        same = durable.sha256_file(final / "solution.csv") == durable.sha256_file(
            folder / "solution.csv"
        )
        if not same:
            raise RefusedError(
                f"{facts.slug} is registered in {self.path} with other data",
                hint="use another workspace, or remove that folder",
            )
        if self._facts(facts.slug) != facts:
            facts_file.write(final / "facts.json", facts)
        return final

    def save_tree(self, slug: str) -> Path:
        """Return what everybody can download and a saved run sees as the competition's input."""
        if self.competition(slug).scores_saved_output:
            return self.rerun_tree(slug)
        return self.competition_folder(slug) / "public"

    def rerun_tree(self, slug: str) -> Path:
        """Return the public tree with the hidden test in place of the public one; made once."""
        folder = self.competition_folder(slug)
        final = folder / "rerun"
        with self._making:
            if not final.exists():
                hidden = {part.name for part in (folder / "hidden").iterdir()}
                with durable.staging(final) as staged:
                    _link_tree(folder / "hidden", staged, skip=set())
                    _link_tree(folder / "public", staged, skip=hidden)
        return final

    def archive(self, slug: str) -> Path:
        """Return the zip of all that can be downloaded, `<slug>.zip`; made once, stored."""
        tree = self.save_tree(slug)
        return self.zipped(tree, tree.parent / f"archive-{tree.name}" / f"{slug}.zip")

    def zipped(self, tree: Path, target: Path) -> Path:
        """Return a zip of a folder that never changes; made once, stored."""
        with self._making:
            if not target.exists():
                with (
                    durable.replacing(target) as beside,
                    zipfile.ZipFile(beside, "w", zipfile.ZIP_STORED) as archive,
                ):
                    for path in files_under(tree):
                        archive.write(path, path.relative_to(tree).as_posix())
        return target


def files_under(tree: Path) -> list[Path]:
    """Return all plain files below a folder, by name."""
    return sorted(path for path in tree.rglob("*") if path.is_file() and not path.is_symlink())


def _link_tree(source: Path, target: Path, *, skip: set[str]) -> None:
    for path in files_under(source):
        relative = path.relative_to(source)
        if relative.parts[0] in skip:
            continue
        copy = target / relative
        copy.parent.mkdir(parents=True, exist_ok=True)
        try:
            copy.hardlink_to(path)
        except OSError:  # a file system without hard links
            shutil.copy2(path, copy)

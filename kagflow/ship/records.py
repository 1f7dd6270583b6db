"""Remember what was submitted and what it cost: one SQLite file per user, safe under two processes.

Rows come out as frozen values. The journal is a rollback journal with full syncs, since the file
may lie where shared memory does not work; each change is one immediate transaction.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal, TypeVar

from kagflow import sqlite
from kagflow.errors import LocalError

SCHEMA_VERSION = 2
FILE = "kagflow.sqlite3"
SCHEMA = """
CREATE TABLE submissions (
  id INTEGER PRIMARY KEY,
  profile TEXT NOT NULL, account TEXT NOT NULL, competition TEXT NOT NULL, pack TEXT NOT NULL,
  attempt INTEGER NOT NULL DEFAULT 1,
  kernel TEXT, kernel_version INTEGER, datasets TEXT NOT NULL DEFAULT '[]',
  accelerator TEXT,
  ensemble TEXT, runs TEXT NOT NULL DEFAULT '[]',
  cv_naive REAL, cv_crossfitted REAL, cv_images INTEGER, cv_label TEXT, floor REAL,
  projected_p50 REAL, projected_p95 REAL, real_minutes REAL, gpu_hours REAL,
  intent_at TEXT NOT NULL, pushed_at TEXT, submitted_at TEXT, scored_at TEXT,
  ref INTEGER, message TEXT, status TEXT NOT NULL, public REAL, private REAL,
  error TEXT, cause TEXT, receipt TEXT, selected INTEGER NOT NULL DEFAULT 0,
  detail TEXT NOT NULL DEFAULT '{}',
  UNIQUE (profile, account, competition, pack, attempt));
CREATE TABLE steps (
  id INTEGER PRIMARY KEY,
  job TEXT NOT NULL, name TEXT NOT NULL, state TEXT NOT NULL,
  effect TEXT NOT NULL, result TEXT, intent_at TEXT NOT NULL, result_at TEXT,
  UNIQUE (job, name));
CREATE TABLE hours (
  id INTEGER PRIMARY KEY,
  profile TEXT NOT NULL, account TEXT NOT NULL, kind TEXT NOT NULL, competition TEXT NOT NULL,
  subject TEXT NOT NULL, place TEXT NOT NULL, accelerator TEXT NOT NULL,
  started TEXT NOT NULL, ended TEXT, seconds REAL, forecast_seconds REAL,
  source TEXT NOT NULL, detail TEXT NOT NULL DEFAULT '{}',
  UNIQUE (profile, account, kind, subject, started));
CREATE TABLE quota (
  id INTEGER PRIMARY KEY,
  profile TEXT NOT NULL, account TEXT NOT NULL, at TEXT NOT NULL, accelerator TEXT NOT NULL,
  used REAL NOT NULL, reserved REAL NOT NULL, total REAL NOT NULL, minimum REAL NOT NULL,
  refresh TEXT, source TEXT NOT NULL);
CREATE INDEX hours_by_start ON hours (profile, account, started);
CREATE INDEX quota_by_time ON quota (profile, account, accelerator, at);
"""
# A file of version 1 knows one dataset an attempt.
DATASETS = """
ALTER TABLE submissions ADD COLUMN datasets TEXT NOT NULL DEFAULT '[]';
UPDATE submissions SET datasets = '["' || dataset || '/' || dataset_version || '"]'
  WHERE dataset_version IS NOT NULL;
"""


@dataclass(frozen=True)
class SubmissionRow:
    """One attempt to submit one pack; minutes, hours, scores are None until they are known.

    `datasets` are the pinned versions that the kernel mounts: owner/slug/version.
    `status`: planned, running, ran (not submitted yet), submitted, scored, failed (the kernel, or
    scoring where `ref` is).
    """

    profile: str
    account: str
    competition: str
    pack: str
    attempt: int = 1
    kernel: str | None = None
    kernel_version: int | None = None
    datasets: tuple[str, ...] = ()
    accelerator: str | None = None
    ensemble: str | None = None
    runs: tuple[str, ...] = ()
    cv_naive: float | None = None
    cv_crossfitted: float | None = None
    cv_images: int | None = None
    cv_label: str | None = None
    floor: float | None = None
    projected_p50: float | None = None
    projected_p95: float | None = None
    real_minutes: float | None = None
    gpu_hours: float | None = None
    intent_at: str = ""
    pushed_at: str | None = None
    submitted_at: str | None = None
    scored_at: str | None = None
    ref: int | None = None
    message: str | None = None
    status: str = "planned"
    public: float | None = None
    private: float | None = None
    error: str | None = None
    cause: str | None = None
    receipt: str | None = None
    selected: int = 0
    detail: Mapping[str, Any] | None = None
    id: int | None = None


@dataclass(frozen=True)
class StepRow:
    """One step of a job: what it meant to do, and what came of it.

    `state` is intent, done, or refused where the other side said no.
    """

    job: str
    name: str
    state: Literal["intent", "done", "refused"]
    effect: Mapping[str, Any]
    result: Mapping[str, Any] | None
    intent_at: str
    result_at: str | None
    id: int | None = None


@dataclass(frozen=True)
class HoursRow:
    """One stretch of computing; `ended` None while it runs, `seconds` what is counted for it.

    `kind`: train, kernel, submission, elsewhere. `place`: local, kaggle, ssh:HOST. `source` says
    how the seconds are known: measured, server, estimated, user.
    """

    profile: str
    account: str
    kind: str
    competition: str
    subject: str
    place: str
    accelerator: str
    started: str
    ended: str | None = None
    seconds: float | None = None
    forecast_seconds: float | None = None
    source: str = "measured"
    detail: Mapping[str, Any] | None = None
    id: int | None = None


@dataclass(frozen=True)
class QuotaRow:
    """One look at the week's quota in seconds; `source` server, or user for an anchor by hand."""

    profile: str
    account: str
    at: str
    accelerator: str
    used: float
    reserved: float
    total: float
    minimum: float
    refresh: str | None
    source: str
    id: int | None = None


Row = TypeVar("Row", SubmissionRow, StepRow, HoursRow, QuotaRow)
_TABLES = {SubmissionRow: "submissions", StepRow: "steps", HoursRow: "hours", QuotaRow: "quota"}
_LISTS = frozenset({"runs", "datasets"})
_JSON = _LISTS | {"detail", "effect", "result"}


class Records:
    """Open the database in `folder`, made on first use."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / FILE
        folder.mkdir(parents=True, exist_ok=True)
        with sqlite.transaction(self.path) as db:
            version = int(db.execute("PRAGMA user_version").fetchone()[0])
            if version < SCHEMA_VERSION:
                for statement in (SCHEMA if version == 0 else DATASETS).split(";"):
                    db.execute(statement)
                db.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")
        if version > SCHEMA_VERSION:
            raise LocalError(
                f"{self.path} was written by a newer kagflow",
                hint="upgrade kagflow, or set KAGFLOW_HOME to another folder",
            )

    def add(self, row: Row) -> Row:
        """Insert a row and return it with its id; an equal key returns the row that is there."""
        table, values = _TABLES[type(row)], _encoded(asdict(row))
        values.pop("id")
        names = ", ".join(values)
        marks = ", ".join("?" for _ in values)
        with sqlite.transaction(self.path) as db:
            cursor = db.execute(
                f"INSERT OR IGNORE INTO {table} ({names}) VALUES ({marks})",  # noqa: S608
                tuple(values.values()),
            )
            if cursor.rowcount:
                found = db.execute(f"SELECT * FROM {table} WHERE id = ?", (cursor.lastrowid,))  # noqa: S608
            else:
                keys = _KEYS[type(row)]
                where = " AND ".join(f"{key} = ?" for key in keys)
                found = db.execute(
                    f"SELECT * FROM {table} WHERE {where}",  # noqa: S608
                    tuple(values[key] for key in keys),
                )
            return _decoded(type(row), found.fetchone())

    def update(self, kind: type[Row], row_id: int | None, **values: Any) -> Row:
        """Change columns of one row in one transaction and return the row."""
        table = _TABLES[kind]
        sets = ", ".join(f"{name} = ?" for name in values)
        with sqlite.transaction(self.path) as db:
            db.execute(
                f"UPDATE {table} SET {sets} WHERE id = ?",  # noqa: S608
                (*_encoded(values).values(), row_id),
            )
            found = db.execute(f"SELECT * FROM {table} WHERE id = ?", (row_id,))  # noqa: S608
            return _decoded(kind, found.fetchone())

    def select(self, kind: type[Row], **where: Any) -> list[Row]:
        """Return the rows whose columns equal `where`, oldest first; None there means any."""
        asked = {name: value for name, value in where.items() if value is not None}
        clause = " AND ".join(f"{name} = ?" for name in asked) or "1"
        with sqlite.opened(self.path) as db:
            found = db.execute(
                f"SELECT * FROM {_TABLES[kind]} WHERE {clause} ORDER BY id",  # noqa: S608
                tuple(asked.values()),
            )
            return [_decoded(kind, row) for row in found]

    def intend(self, job: str, name: str, effect: Mapping[str, Any]) -> StepRow:
        """Note that a step is about to happen; a step that is there already stays as it is."""
        return self.add(StepRow(job, name, "intent", effect, None, now(), None))

    def done(self, step: StepRow, result: Mapping[str, Any]) -> StepRow:
        """Note what came of a step."""
        return self.update(StepRow, step.id, state="done", result=result, result_at=now())


_KEYS: dict[type[Any], tuple[str, ...]] = {
    SubmissionRow: ("profile", "account", "competition", "pack", "attempt"),
    StepRow: ("job", "name"),
    HoursRow: ("profile", "account", "kind", "subject", "started"),
    QuotaRow: ("profile", "account", "accelerator", "at"),
}


def now() -> str:
    """Return this moment as ISO text in UTC, which sorts as it passes."""
    return datetime.now(UTC).isoformat(timespec="milliseconds")


def _encoded(values: Mapping[str, Any]) -> dict[str, Any]:
    return {
        name: json.dumps(value if value is not None or name == "result" else {}, sort_keys=True)
        if name in _JSON
        else value
        for name, value in values.items()
    }


def _decoded(kind: type[Row], row: sqlite3.Row) -> Row:
    values = {field.name: row[field.name] for field in fields(kind)}
    for name in _JSON & set(values):
        values[name] = json.loads(values[name]) if values[name] else None
    for name in _LISTS & set(values):
        values[name] = tuple(values[name])
    return kind(**values)

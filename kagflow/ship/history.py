"""Read what was submitted."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from kagflow.errors import UsageError
from kagflow.ship.records import Records, SubmissionRow

ENDED = frozenset({"scored", "failed"})


def history(
    records: Records, *, profile: str, competition: str | None = None, account: str | None = None
) -> list[SubmissionRow]:
    """Return the submissions of one profile, oldest first."""
    return records.select(SubmissionRow, profile=profile, competition=competition, account=account)


def pending(records: Records, *, profile: str) -> list[SubmissionRow]:
    """Return the submissions whose outcome is still open."""
    return [row for row in history(records, profile=profile) if row.status not in ENDED]


def find(records: Records, ref: str, *, profile: str) -> SubmissionRow:
    """Return the submission that `ref` names: its number on Kaggle, or the start of its pack.

    Raises UsageError where none or several fit; of several attempts the newest is meant.
    """
    rows = history(records, profile=profile)
    found = [row for row in rows if str(row.ref) == ref]
    found = found or [row for row in rows if row.pack.startswith(ref)]
    if not found:
        raise UsageError(f"no submission '{ref}' in the history", hint="kagflow history")
    packs = sorted({row.pack for row in found})
    if len(packs) > 1:
        raise UsageError(f"'{ref}' fits several packs: {', '.join(packs)}")
    return found[-1]


def as_dict(row: SubmissionRow) -> dict[str, Any]:
    """Return a row as plain JSON values."""
    return {
        **asdict(row),
        "runs": list(row.runs),
        "datasets": list(row.datasets),
        "detail": dict(row.detail or {}),
    }

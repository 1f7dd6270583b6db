"""Read what was submitted."""

from __future__ import annotations

import math
from dataclasses import asdict
from typing import Any

from kagflow.errors import UsageError
from kagflow.ship.records import Records, SubmissionRow

ENDED = frozenset({"scored", "failed"})
# Kaggle shows five digits.
ROUNDING = 0.5e-5
# Standard errors within which two samples' floors are the same.
ERRORS = 2.0
UNSEEN = (
    "nobody can see a hidden rerun's log: whether time was short there, and views or members were "
    "shed, is not known"
)


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


def at_floor(row: SubmissionRow) -> dict[str, float]:
    """Return the scores, by board, that are what an all-empty file scores, as far as can be told.

    A run that gave up leaves the empty file that stood from the start. The floor is known out of
    fold, and the hidden images are another sample: a score counts that is within their sampling
    error (and Kaggle's rounding) of it and nearer to it than to the CV.
    """
    if row.floor is None:
        return {}
    margin = ROUNDING
    if row.cv_images:
        margin += ERRORS * math.sqrt(2 * max(row.floor * (1 - row.floor), 0.0) / row.cv_images)
    cv = row.cv_naive if row.cv_crossfitted is None else row.cv_crossfitted

    def low(score: float) -> bool:
        apart = abs(score - row.floor) if row.floor is not None else math.inf
        return apart <= margin and (cv is None or apart <= abs(score - cv))

    boards = {"public": row.public, "private": row.private}
    return {name: score for name, score in boards.items() if score is not None and low(score)}


def notes(row: SubmissionRow) -> list[str]:
    """Return what a person should know of a submission beyond its row."""
    found = []
    if low := at_floor(row):
        scores = " and ".join(f"{name} {score:.5f}" for name, score in low.items())
        found.append(
            f"submission {row.ref}: {scores} is what a file without any prediction scores "
            f"({row.floor:.5f} out of fold): the run may have given up"
        )
    if row.status == "scored" and (row.detail or {}).get("rerun_minutes") is not None:
        found.append(UNSEEN)
    return found


def as_dict(row: SubmissionRow) -> dict[str, Any]:
    """Return a row as plain JSON values."""
    return {
        **asdict(row),
        "runs": list(row.runs),
        "datasets": list(row.datasets),
        "detail": dict(row.detail or {}),
        "at_floor": sorted(at_floor(row)),
    }

"""Note what became of a kernel's run or of a submission: its row and its hours.

`kagflow submit` notes what it waited for, `kagflow history` what had ended when somebody asked.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

from kagflow.ship import assumptions, hours
from kagflow.ship.cause import cause
from kagflow.ship.records import HoursRow, Records, SubmissionRow, now
from kagflow.ship.remote_types import KernelStatus, LogLine, Submission

CANCELLED = "CANCEL_ACKNOWLEDGED"
TAIL = 30  # lines of a failed kernel's log that are kept and shown


def begin(records: Records, row: SubmissionRow, kind: str) -> HoursRow:
    """Open the stretch of a submission's kernel run or of its scoring; it is there once."""
    subject = f"{row.kernel}/v{row.kernel_version}" if kind == "kernel" else str(row.ref)
    started = row.pushed_at if kind == "kernel" else row.submitted_at
    projected = row.projected_p50
    # Where nothing runs again, scoring takes no machine.
    idle = kind == "submission" and (row.detail or {}).get("rerun") == "none"
    stretch = HoursRow(
        profile=row.profile,
        account=row.account,
        kind=kind,
        competition=row.competition,
        subject=subject,
        place="kaggle",
        accelerator="" if idle else row.accelerator or "",
        started=str(started),
        forecast_seconds=projected * 60 if projected is not None else None,
    )
    return hours.begin(records, stretch)


def end_run(
    records: Records,
    row: SubmissionRow,
    status: KernelStatus,
    log: Sequence[LogLine],
    *,
    noticed: bool = False,
) -> HoursRow:
    """Close the stretch of a kernel's run with what its log says that it took.

    A log ends with the last line, and a run that was cancelled went on to its time limit. Where no
    log tells and the end was only `noticed`, it took what was projected.
    """
    limit_s = float((row.detail or {}).get("timeout_s") or 0.0)
    stretch = begin(records, row, "kernel")
    return end_kernel(records, stretch, status, log, limit_s=limit_s, noticed=noticed)


def end_kernel(
    records: Records,
    stretch: HoursRow,
    status: KernelStatus,
    log: Sequence[LogLine],
    *,
    limit_s: float,
    noticed: bool = False,
) -> HoursRow:
    """Close a kernel's stretch as `end_run` does; it was to end after `limit_s` at the latest."""
    told = max((line.seconds for line in log), default=None)
    most = _passed(stretch)
    if status.name == CANCELLED:
        seconds: float | None = max(told or 0.0, min(most, limit_s))
        return hours.end(records, stretch, seconds=seconds, source="estimated", noticed=noticed)
    if told is None and noticed:
        told = most if stretch.forecast_seconds is None else min(most, stretch.forecast_seconds)
    return hours.end(records, stretch, seconds=told, noticed=noticed)


def ran(records: Records, row: SubmissionRow, seconds: float) -> SubmissionRow:
    """Note that a kernel's run came to its end; one that was submitted stays that."""
    status = "ran" if row.status in {"planned", "running"} else row.status
    return _update(records, row, status=status, **_took(row, seconds))


def run_failed(
    records: Records,
    row: SubmissionRow,
    status: KernelStatus,
    log: Sequence[LogLine],
    *,
    seconds: float,
) -> SubmissionRow:
    """Note that a kernel's run failed after `seconds`: Kaggle's reason, likely cause, log's end.

    What gave the cause away is kept too where it was said before that.
    """
    lines = "".join(line.text for line in log).splitlines()
    # A time limit shows as a cancel, whatever the words beside it are.
    told = status.name == CANCELLED or not status.message
    reason = ": ".join(filter(None, [status.name if told else "", status.message]))
    found, tail = cause(reason, lines), lines[-TAIL:]
    earlier = found.line if found and cause(reason, tail) != found else ""
    return _update(
        records,
        row,
        status="failed",
        error=reason,
        cause=found.name if found else None,
        detail={**(row.detail or {}), "log": tail, "telling": earlier},
        **_took(row, seconds),
    )


def _took(row: SubmissionRow, seconds: float) -> dict[str, float]:
    """Return the minutes and GPU hours of a saved run."""
    return {"real_minutes": seconds / 60, "gpu_hours": _gpu_hours(row, seconds / 60)}


def _gpu_hours(row: SubmissionRow, minutes: float) -> float:
    return minutes / 60 if hours.family(row.accelerator or "") else 0.0


def end_scoring(records: Records, row: SubmissionRow, *, noticed: bool = False) -> HoursRow:
    """Close the stretch of a submission's scoring.

    What a rerun is billed is not known: it counts as long as it took, or where it was only
    noticed to have ended, as long as it was projected and at most as long as it may have taken.
    """
    stretch, seconds = begin(records, row, "submission"), None
    if noticed:
        most = _passed(stretch)
        seconds = most if stretch.forecast_seconds is None else min(most, stretch.forecast_seconds)
    return hours.end(records, stretch, seconds=seconds, source="estimated", noticed=noticed)


def scoring_failed(
    records: Records,
    row: SubmissionRow,
    item: Submission,
    *,
    state: Path,
    rerun: str,
    rerun_s: float,
) -> SubmissionRow:
    """Note that Kaggle could not score a submission; `state` is the client's folder."""
    error = item.error or "no reason given"
    found = cause(error)
    return _update(
        records,
        row,
        status="failed",
        error=error,
        cause=found.name if found else None,
        gpu_hours=_gpu_hours(row, _billed_minutes(row, rerun_s, state=state, rerun=rerun)),
    )


def _saved_minutes(row: SubmissionRow) -> float:
    return float((row.detail or {}).get("save_minutes", row.real_minutes) or 0.0)


def _billed_minutes(row: SubmissionRow, rerun_s: float, *, state: Path, rerun: str) -> float:
    """Return what counts of a submission: its saved run, and a rerun unless that is free."""
    billed = rerun != "none" and assumptions.value(state, "rerun_billed")
    return _saved_minutes(row) + (rerun_s / 60 if billed else 0.0)


def scored(  # noqa: PLR0913 - all that a score comes with
    records: Records,
    row: SubmissionRow,
    item: Submission,
    *,
    state: Path,
    rerun: str,
    rerun_s: float,
    watched: bool = True,
) -> SubmissionRow:
    """Note a submission's scores, minutes and hours; `state` is the client's folder.

    How long a rerun took is known only where it was `watched`.
    """
    save, reran, took = _saved_minutes(row), rerun != "none", rerun_s / 60
    return _update(
        records,
        row,
        status="scored",
        public=item.public,
        private=item.private,
        scored_at=now(),
        real_minutes=save if not reran else took if watched else None,
        gpu_hours=_gpu_hours(row, _billed_minutes(row, rerun_s, state=state, rerun=rerun)),
        detail={
            **(row.detail or {}),
            "save_minutes": save,
            "rerun_minutes": took if reran and watched else None,
        },
    )


def _passed(stretch: HoursRow) -> float:
    """Return the seconds that a stretch can have lasted up to now."""
    passed = (datetime.now(UTC) - hours.moment(stretch.started)).total_seconds()
    return min(max(passed, 0.0), hours.LONGEST.total_seconds())


def _update(records: Records, row: SubmissionRow, **values: object) -> SubmissionRow:
    return records.update(SubmissionRow, row.id, **values)

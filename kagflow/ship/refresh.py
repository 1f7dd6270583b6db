"""Ask Kaggle about what is pending and note what became of it; nothing is pushed or submitted."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from kagflow.ship import history, settle
from kagflow.ship.records import Records, StepRow, SubmissionRow
from kagflow.ship.remote import Remote


def refresh(records: Records, remote: Remote, *, profile: str) -> list[SubmissionRow]:
    """Return the pending submissions of this account as they now are.

    One whose kernel is done but that was never submitted has `ran`, its hours noted: only `submit`
    submits. Raises what Kaggle answers with.
    """
    account = remote.account()
    return [
        _asked(records, remote, row)
        for row in history.pending(records, profile=profile)
        if row.account == account
    ]


def _asked(records: Records, remote: Remote, row: SubmissionRow) -> SubmissionRow:
    if row.ref is None:
        row = _sent(records, remote, row)
    if row.ref is not None:
        return _scored(records, remote, row)
    if row.kernel_version is None:
        row = _pushed(records, remote, row)
    if row.kernel_version is None:
        return row
    kernel, version = str(row.kernel), row.kernel_version
    status = remote.kernel_status(kernel, version)
    if not status.ended:
        return row
    log = remote.kernel_log(kernel, version)
    closed = settle.end_run(records, row, status, log, noticed=True)
    if not status.complete:
        return settle.run_failed(records, row, status, log, seconds=closed.seconds or 0.0)
    return settle.ran(records, row, closed.seconds or 0.0)


def _pushed(records: Records, remote: Remote, row: SubmissionRow) -> SubmissionRow:
    """Find the run of a push whose answer was never noted: its hours count all the same."""
    step = _step(records, row, "kernel")
    told = (step.result or _version(remote, step)) if step else None
    if told is None:
        return row
    return records.update(
        SubmissionRow,
        row.id,
        kernel=told["ref"],
        kernel_version=told["version"],
        pushed_at=told["at"],
        status="running",
    )


def _sent(records: Records, remote: Remote, row: SubmissionRow) -> SubmissionRow:
    """Find a submission whose answer was never noted."""
    step = _step(records, row, "submit")
    told = (step.result or _submission(remote, step)) if step else None
    if told is None:
        return row
    return records.update(
        SubmissionRow, row.id, ref=told["ref"], submitted_at=told["at"], status="submitted"
    )


def _step(records: Records, row: SubmissionRow, name: str) -> StepRow | None:
    return next(iter(records.select(StepRow, job=f"submission:{row.id}", name=name)), None)


def _submission(remote: Remote, step: StepRow) -> Mapping[str, Any] | None:
    slug, message = step.effect.get("slug"), step.effect.get("message")
    known = remote.submissions(str(slug)) if slug else ()
    ref = next((item.ref for item in known if item.description == message), None)
    return None if ref is None else {"ref": ref, "at": step.intent_at}


def _version(remote: Remote, step: StepRow) -> Mapping[str, Any] | None:
    mark = step.effect.get("mark")
    if mark is None:
        return None
    made = remote.find_version(str(step.effect["ref"]), lambda source: str(mark) in source)
    return {"ref": made.ref, "version": made.version, "at": step.intent_at} if made else None


def _scored(records: Records, remote: Remote, row: SubmissionRow) -> SubmissionRow:
    item = remote.submission(int(row.ref or 0))
    if not item.ended:
        return row
    stretch = settle.end_scoring(records, row, noticed=True)
    rerun, rerun_s = str((row.detail or {}).get("rerun", "unknown")), stretch.seconds or 0.0
    if item.status == "ERROR":
        return settle.scoring_failed(
            records, row, item, state=remote.state, rerun=rerun, rerun_s=rerun_s
        )
    return settle.scored(
        records, row, item, state=remote.state, rerun=rerun, rerun_s=rerun_s, watched=False
    )

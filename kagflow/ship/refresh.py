"""Ask Kaggle about what is pending and note what became of it; nothing is pushed or submitted."""

from __future__ import annotations

from kagflow.ship import history, settle
from kagflow.ship.records import Records, SubmissionRow
from kagflow.ship.remote import Remote


def refresh(records: Records, remote: Remote, *, profile: str) -> list[SubmissionRow]:
    """Return the pending submissions of this account as they now are.

    One whose kernel is done but that was never submitted stays as it is, its hours noted: only
    `submit` submits. Raises what Kaggle answers with.
    """
    account = remote.account()
    return [
        _asked(records, remote, row)
        for row in history.pending(records, profile=profile)
        if row.account == account
    ]


def _asked(records: Records, remote: Remote, row: SubmissionRow) -> SubmissionRow:
    if row.ref is not None:
        return _scored(records, remote, row)
    if row.kernel_version is None:
        return row
    kernel, version = str(row.kernel), row.kernel_version
    status = remote.kernel_status(kernel, version)
    if not status.complete and not status.failed:
        return row
    log = remote.kernel_log(kernel, version)
    settle.end_run(records, row, log, noticed=True)
    return row if status.complete else settle.run_failed(records, row, status, log)


def _scored(records: Records, remote: Remote, row: SubmissionRow) -> SubmissionRow:
    item = remote.submission(int(row.ref or 0))
    if item.status not in {"COMPLETE", "ERROR"}:
        return row
    stretch = settle.end_scoring(records, row, noticed=True)
    if item.status == "ERROR":
        return settle.scoring_failed(records, row, item)
    return settle.scored(
        records,
        row,
        item,
        state=remote.state,
        rerun=str((row.detail or {}).get("rerun", "unknown")),
        rerun_s=stretch.seconds or 0.0,
        watched=False,
    )

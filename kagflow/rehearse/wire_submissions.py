"""competitions.CompetitionApiService: code submissions, their scores and the daily limit."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

from kagglesdk.competitions.types import competition_api_service as api
from kagglesdk.competitions.types.competition_enums import SubmissionGroup
from kagglesdk.competitions.types.submission_status import SubmissionStatus

from kagflow.rehearse.facts import CompetitionFacts
from kagflow.rehearse.finals import selected
from kagflow.rehearse.runner import find_output, open_session
from kagflow.rehearse.store import now
from kagflow.rehearse.wire import Call, Handler, WireError, make, moment, page
from kagflow.rehearse.wire_competitions import SITE, entered, known


def create_code_submission(call: Call, request: api.ApiCreateCodeSubmissionRequest) -> Any:
    """Take a finished kernel version into the queue for scoring; refusals are 400."""
    facts = entered(call, request.competition_name, "competitions.participate")
    if _over(facts) and not call.store.settings.late_submissions:
        raise WireError(400, "Submission not allowed: the competition's deadline has passed")
    file_name = request.file_name or "submission.csv"
    saved = _saved_run(call, request)
    _check(call, saved, file_name)
    # One transaction: a kill must not leave a submission that waits for a run nobody recorded.
    with call.store.write() as db:
        if _today(db, facts.slug, call.user) >= facts.daily_submissions:
            raise WireError(
                400,
                "Submission not allowed: Your team has used its daily Submission allowance "
                f"({facts.daily_submissions}) today",
            )
        session = saved["id"] if facts.scores_saved_output else _open_rerun(db, saved, facts)
        ref = db.execute(
            "INSERT INTO submission (competition, user, version, session, file_name, description, "
            "status, created) VALUES (?, ?, ?, ?, ?, ?, 'PENDING', ?)",
            (
                facts.slug,
                call.user,
                saved["version"],
                session,
                file_name,
                request.submission_description or "",
                now(),
            ),
        ).lastrowid
    call.runner.enqueue(session)
    return make(
        api.ApiCreateCodeSubmissionResponse,
        message=f"Successfully submitted to {facts.title}",
        ref=ref,
    )


def _open_rerun(db: sqlite3.Connection, saved: sqlite3.Row, facts: CompetitionFacts) -> int:
    request = json.loads(saved["request"])
    return open_session(db, saved["version"], "rerun", request, facts.inference_minutes * 60)


def _saved_run(call: Call, request: api.ApiCreateCodeSubmissionRequest) -> sqlite3.Row:
    row = call.store.row(
        "SELECT s.*, v.request FROM session s JOIN kernel_version v ON v.id = s.version "
        "JOIN kernel k ON k.id = v.kernel WHERE s.kind = 'save' AND k.owner = ? AND k.slug = ? "
        "AND (? IS NULL OR v.number = ?) ORDER BY v.number DESC LIMIT 1",
        (
            request.kernel_owner,
            request.kernel_slug,
            request.kernel_version or None,
            request.kernel_version,
        ),
    )
    if row is None or request.kernel_owner != call.user:
        raise WireError(400, "Submission not allowed: Notebook version not found")
    return row


def _check(call: Call, saved: sqlite3.Row, file_name: str) -> None:
    if saved["status"] != "COMPLETE":
        raise WireError(400, "Submission not allowed: Notebook version has not completed")
    if json.loads(saved["request"]).get("enableInternet", True):
        raise WireError(400, "Submission not allowed: Notebooks with internet access can't submit")
    if find_output(call.store, saved["id"], file_name) is None:
        raise WireError(400, f"Submission not allowed: {file_name} is not an output of the version")


def _today(db: sqlite3.Connection, slug: str, user: str) -> int:
    midnight = datetime.now(UTC).date().isoformat()
    return int(
        db.execute(
            "SELECT COUNT(*) FROM submission WHERE competition = ? AND user = ? AND created >= ?",
            (slug, user, midnight),
        ).fetchone()[0]
    )


def _over(facts: CompetitionFacts) -> bool:
    return moment(facts.deadline) < datetime.fromisoformat(now())


def _submission(call: Call, row: sqlite3.Row) -> api.ApiSubmission:
    shown = call.store.settings.private_before_deadline or _over(
        call.store.competition(row["competition"])
    )
    return make(
        api.ApiSubmission,
        ref=row["ref"],
        date=moment(row["created"]),
        description=row["description"],
        error_description=row["error"],
        file_name=row["file_name"],
        public_score=row["public"] or "",
        private_score=(row["private"] if shown else None) or "",
        status=SubmissionStatus[row["status"]],
        submitted_by=row["user"],
        submitted_by_ref=row["user"],
        team_name=row["user"],
        total_bytes=row["bytes"],
        url=f"{SITE}/submissions/{row['ref']}",
    )


def list_submissions(call: Call, request: api.ApiListSubmissionsRequest) -> Any:
    """Answer this user's submissions, newest first."""
    facts = known(call, request.competition_name)
    rows = call.store.rows(
        "SELECT * FROM submission WHERE competition = ? AND user = ? AND created <= ? "
        "ORDER BY ref DESC",
        (facts.slug, call.user, _listed_until(call)),
    )
    if request.group == SubmissionGroup.SUBMISSION_GROUP_SUCCESSFUL:
        rows = [row for row in rows if row["status"] == "COMPLETE"]
    if request.group == SubmissionGroup.SUBMISSION_GROUP_SELECTED:
        ticked = selected(call.store, facts.slug)
        rows = [row for row in rows if row["ref"] in ticked]
    items, token = page(rows, request)
    return make(
        api.ApiListSubmissionsResponse,
        submissions=[_submission(call, row) for row in items],
        next_page_token=token,
    )


def get_submission(call: Call, request: api.ApiGetSubmissionRequest) -> Any:
    """Answer one submission of this user."""
    row = call.store.row(
        "SELECT * FROM submission WHERE ref = ? AND user = ? AND created <= ?",
        (request.ref, call.user, _listed_until(call)),
    )
    if row is None:
        raise WireError(404, f"Submission {request.ref} not found")
    return _submission(call, row)


def _listed_until(call: Call) -> str:
    lag = timedelta(seconds=call.store.settings.submission_listed_s)
    return (datetime.fromisoformat(now()) - lag).isoformat(timespec="milliseconds")


def get_submission_limits(call: Call, request: api.ApiGetSubmissionLimitsRequest) -> Any:
    """Answer how many submissions today has had and still has; days are UTC."""
    facts: CompetitionFacts = known(call, request.competition_name)
    with call.store.write() as db:
        today = _today(db, facts.slug, call.user)
        total = db.execute(
            "SELECT COUNT(*) FROM submission WHERE competition = ? AND user = ?",
            (facts.slug, call.user),
        ).fetchone()[0]
    return make(
        api.ApiSubmissionLimits,
        num_today=today,
        num_total=total,
        num_allowed_now=max(facts.daily_submissions - today, 0),
    )


HANDLERS: Mapping[str, Handler] = {
    "competitions.CompetitionApiService/CreateCodeSubmission": create_code_submission,
    "competitions.CompetitionApiService/ListSubmissions": list_submissions,
    "competitions.CompetitionApiService/GetSubmission": get_submission,
    "competitions.CompetitionApiService/GetSubmissionLimits": get_submission_limits,
}

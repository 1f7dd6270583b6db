"""competitions.CompetitionApiService: what there is to enter, its files, its leaderboard."""

from __future__ import annotations

import csv
import io
import zipfile
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from kagglesdk.competitions.types import competition_api_service as api
from starlette.responses import RedirectResponse, Response

from kagflow.rehearse.facts import CompetitionFacts
from kagflow.rehearse.store import files_under
from kagflow.rehearse.wire import Call, Handler, WireError, make, moment, page

SITE = "https://www.kaggle.com"


def known(call: Call, slug: str, permission: str = "competitions.get") -> CompetitionFacts:
    """Return a competition's facts; an unknown slug is a denied permission, as on Kaggle."""
    if not call.store.has_competition(slug):
        raise WireError(403, f"Permission '{permission}' was denied")
    return call.store.competition(slug)


def entered(call: Call, slug: str, permission: str = "competitions.get") -> CompetitionFacts:
    """Return a competition's facts where its rules are accepted; raise WireError 403 otherwise."""
    facts = known(call, slug, permission)
    if not call.store.settings.rules_accepted:
        raise WireError(
            403,
            "You must accept this competition's rules before you'll be able to download files.",
        )
    return facts


def _competition(call: Call, facts: CompetitionFacts) -> api.ApiCompetition:
    teams = call.store.rows(
        "SELECT DISTINCT user FROM submission WHERE competition = ?", (facts.slug,)
    )
    return make(
        api.ApiCompetition,
        id=1 + [other.slug for other in call.store.competitions()].index(facts.slug),
        ref=f"{SITE}/competitions/{facts.slug}",
        url=f"{SITE}/competitions/{facts.slug}",
        title=facts.title,
        category="Rehearsal",
        reward="Knowledge",
        deadline=moment(facts.deadline),
        merger_deadline=moment(facts.deadline),
        new_entrant_deadline=moment(facts.deadline),
        team_count=len(teams),
        user_has_entered=call.store.settings.rules_accepted,
        max_daily_submissions=facts.daily_submissions,
        evaluation_metric=facts.task.metric,
        is_kernels_submissions_only=True,
        host_name=facts.host,
        organization_name=facts.host,
    )


def list_competitions(call: Call, request: api.ApiListCompetitionsRequest) -> Any:
    """Answer all competitions, or those whose slug or title holds the search word."""
    word = (request.search or "").lower()
    found = [
        facts
        for facts in call.store.competitions()
        if word in facts.slug.lower() or word in facts.title.lower()
    ]
    items, token = page(found, request)
    return make(
        api.ApiListCompetitionsResponse,
        competitions=[_competition(call, facts) for facts in items],
        next_page_token=token,
    )


def get_competition(call: Call, request: api.ApiGetCompetitionRequest) -> Any:
    """Answer one competition."""
    return _competition(call, known(call, request.competition_name))


def list_data_files(call: Call, request: api.ApiListDataFilesRequest) -> Any:
    """Answer the files that can be downloaded, by name."""
    facts = known(call, request.competition_name)
    tree = call.store.save_tree(facts.slug)
    items, token = page(files_under(tree), request)
    files = [
        make(
            api.ApiDataFile,
            ref=path.name,
            name=path.relative_to(tree).as_posix(),
            total_bytes=path.stat().st_size,
            creation_date=datetime.fromtimestamp(path.stat().st_mtime, UTC),
        )
        for path in items
    ]
    return make(api.ApiListDataFilesResponse, files=files, next_page_token=token)


def download_data_files(call: Call, request: api.ApiDownloadDataFilesRequest) -> Response:
    """Redirect to one zip of all files; its name ends in .zip, from which the client names it."""
    facts = entered(call, request.competition_name)
    return RedirectResponse(call.links.download(call.store.archive(facts.slug)), 302)


def download_data_file(call: Call, request: api.ApiDownloadDataFileRequest) -> Response:
    """Redirect to one file."""
    facts = entered(call, request.competition_name)
    tree = call.store.save_tree(facts.slug)
    path = (tree / request.file_name).resolve()
    if not path.is_relative_to(tree) or not path.is_file():
        raise WireError(404, f"{request.file_name} is not a file of {facts.slug}")
    return RedirectResponse(call.links.download(path), 302)


def _ranking(call: Call, slug: str) -> list[Mapping[str, Any]]:
    rows = call.store.rows(
        "SELECT user, MAX(public) AS score, created FROM submission "
        "WHERE competition = ? AND status = 'COMPLETE' GROUP BY user ORDER BY score DESC, user",
        (slug,),
    )
    return [dict(row) for row in rows]


def get_leaderboard(call: Call, request: api.ApiGetLeaderboardRequest) -> Any:
    """Answer the public leaderboard: each team's best public score."""
    ranking = _ranking(call, known(call, request.competition_name).slug)
    entries = [
        make(
            api.ApiLeaderboardSubmission,
            team_id=rank,
            team_name=row["user"],
            submission_date=moment(row["created"]),
            score=row["score"],
        )
        for rank, row in enumerate(ranking, 1)
    ]
    items, token = page(entries, request)
    return make(api.ApiGetLeaderboardResponse, submissions=items, next_page_token=token)


def download_leaderboard(call: Call, request: api.ApiDownloadLeaderboardRequest) -> Response:
    """Answer the leaderboard as a zip in the body, with no redirect, as Kaggle does."""
    facts = known(call, request.competition_name)
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow(["Rank", "TeamId", "TeamName", "LastSubmissionDate", "Score"])
    for rank, row in enumerate(_ranking(call, facts.slug), 1):
        table.writerow([rank, rank, row["user"], row["created"], row["score"]])
    body = io.BytesIO()
    with zipfile.ZipFile(body, "w") as archive:
        archive.writestr(f"{facts.slug}-publicleaderboard.csv", text.getvalue())
    return Response(body.getvalue(), media_type="application/zip")


HANDLERS: Mapping[str, Handler] = {
    "competitions.CompetitionApiService/ListCompetitions": list_competitions,
    "competitions.CompetitionApiService/GetCompetition": get_competition,
    "competitions.CompetitionApiService/ListDataFiles": list_data_files,
    "competitions.CompetitionApiService/DownloadDataFiles": download_data_files,
    "competitions.CompetitionApiService/DownloadDataFile": download_data_file,
    "competitions.CompetitionApiService/GetLeaderboard": get_leaderboard,
    "competitions.CompetitionApiService/DownloadLeaderboard": download_leaderboard,
}

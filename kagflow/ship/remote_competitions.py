"""Ask Kaggle about competitions, and submit to them."""

from __future__ import annotations

import difflib
from collections.abc import Callable
from pathlib import Path
from typing import Any

from kagflow.errors import KagflowError, RemoteError
from kagflow.progress import QUIET, Progress
from kagflow.ship.remote_download import Download, Watch
from kagflow.ship.remote_errors import ForbiddenError, MissingError, said
from kagflow.ship.remote_rpc import Calls
from kagflow.ship.remote_types import (
    UNKNOWN,
    CompetitionInfo,
    Downloaded,
    LeaderboardRow,
    Limits,
    RemoteFile,
    Submission,
    count,
    moment,
    score,
    size_of,
    words,
)

SITE = "https://www.kaggle.com"


class CompetitionCalls(Calls):
    """Group the calls about one competition."""

    def competition(self, slug: str) -> CompetitionInfo:
        """Return what the competition's page says; raise RemoteError where there is none."""
        try:
            answer = self.rpc("competitions", "get_competition", {"competitionName": slug})
        except (MissingError, ForbiddenError) as error:
            near = self._nearest(slug)
            raise MissingError(
                f"no competition '{slug}' for this account ({error.message})",
                hint=(f"did you mean {' or '.join(near)}? " if near else "")
                + f"Compare the slug with the address of its page, {SITE}/competitions/{slug}",
            ) from None
        return CompetitionInfo(
            slug=slug,
            title=words(answer.get("title")) or slug,
            url=words(answer.get("url")),
            host=words(answer.get("hostName")),
            metric=words(answer.get("evaluationMetric")),
            entered=bool(answer.get("userHasEntered")),
            kernels_only=bool(answer.get("isKernelsSubmissionsOnly")),
            closed=bool(answer.get("submissionsDisabled")),
            daily_submissions=count(answer.get("maxDailySubmissions")),
            deadline=moment(answer.get("deadline")),
        )

    def files(self, slug: str) -> tuple[RemoteFile, ...]:
        """Return every data file of the competition, all pages."""
        fields = {"competitionName": slug}
        with _Entry(self, slug):
            items = list(self.pages("competitions", "list_data_files", fields, "files"))
        return tuple(RemoteFile(words(item.get("name")), size_of(item)) for item in items)

    def download(
        self,
        slug: str,
        target: Path,
        *,
        progress: Progress = QUIET,
        on_size: Callable[[int], None] | None = None,
        watch: Watch | None = None,
    ) -> Downloaded:
        """Download all data as one archive; `on_size` hears its bytes before they come.

        An archive of the same version that is here already is not fetched again.
        """

        def link() -> str:
            with _Entry(self, slug):
                return link_of(
                    self.rpc("competitions", "download_data_files", {"competitionName": slug})
                )

        label = f"download {slug}"
        return Download(
            self.transport, link, target, progress, on_size, label=label, mark=True, watch=watch
        ).run()

    def download_file(
        self, slug: str, name: str, target: Path, *, progress: Progress = QUIET
    ) -> Downloaded:
        """Download one file of the competition, as Kaggle serves it: large ones come as `.zip`."""

        def link() -> str:
            fields = {"competitionName": slug, "fileName": name}
            with _Entry(self, slug):
                return link_of(self.rpc("competitions", "download_data_file", fields))

        return Download(self.transport, link, target, progress, label=name, mark=True).run()

    def submit(self, slug: str, kernel: str, *, version: int, file: str, message: str) -> int:
        """Submit one kernel version's output; return the submission's number.

        `message` must be unique to this submission: a lost answer is looked up by it.
        """
        owner, _, name = kernel.partition("/")
        with _Entry(self, slug):
            before = {item.ref for item in self.submissions(slug)}
        fields = {
            "competitionName": slug,
            "kernelOwner": owner,
            "kernelSlug": name,
            "kernelVersion": version,
            "fileName": file,
            "submissionDescription": message,
        }

        def once() -> int:
            answer = self.rpc("competitions", "create_code_submission", fields)
            ref = count(answer.get("ref"))
            if ref <= 0:
                raise RemoteError(f"submission not accepted: {said(answer) or 'no reason'}")
            return ref

        def look_up() -> int | None:
            new = [item.ref for item in self.submissions(slug) if item.description == message]
            return max((ref for ref in new if ref not in before), default=None)

        with _Entry(self, slug):
            return self.write(once, look_up)

    def submission(self, ref: int) -> Submission:
        """Return one submission; PENDING where Kaggle does not know it yet."""
        try:
            return _submission(self.rpc("competitions", "get_submission", {"ref": ref}))
        except MissingError:
            # A submission made a moment ago may not be visible yet.
            return Submission(ref, "PENDING", None, None, "", "", None)

    def submissions(self, slug: str) -> tuple[Submission, ...]:
        """Return the team's submissions, all pages, newest first."""
        fields = {"competitionName": slug}
        items = self.pages("competitions", "list_submissions", fields, "submissions")
        return tuple(_submission(item) for item in items)

    def selected(self, slug: str) -> tuple[Submission, ...]:
        """Return the submissions that are ticked as finals; only a browser can tick."""
        fields = {"competitionName": slug, "group": "SUBMISSION_GROUP_SELECTED"}
        items = self.pages("competitions", "list_submissions", fields, "submissions")
        return tuple(_submission(item) for item in items)

    def limits(self, slug: str) -> Limits:
        """Return how many submissions are left today (UTC)."""
        answer = self.rpc("competitions", "get_submission_limits", {"competitionName": slug})
        left = answer.get("numAllowedNow")
        # A limit of nought is sent as nothing at all, so only a non-empty answer speaks.
        known = left is not None or bool(answer)
        return Limits(
            count(answer.get("numToday")),
            count(answer.get("numTotal")),
            count(left) if known else None,
        )

    def leaderboard(self, slug: str) -> tuple[LeaderboardRow, ...]:
        """Return the public leaderboard, best first."""
        items = self.pages(
            "competitions", "get_leaderboard", {"competitionName": slug}, "submissions"
        )
        return tuple(
            LeaderboardRow(
                words(item.get("teamName")),
                score(item.get("score")),
                moment(item.get("submissionDate")),
            )
            for item in items
        )

    def _nearest(self, slug: str) -> list[str]:
        fields = {"group": "COMPETITION_LIST_TAB_ENTERED"}
        try:
            found = list(self.pages("competitions", "list_competitions", fields, "competitions"))
        except KagflowError:
            return []
        own = [words(item.get("ref")).rstrip("/").rpartition("/")[2] for item in found]
        return difflib.get_close_matches(slug, own, n=3)


class _Entry:
    """Tell apart why a competition's data is refused."""

    def __init__(self, calls: CompetitionCalls, slug: str) -> None:
        self._calls, self._slug = calls, slug

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: object, error: object, trace: object) -> None:
        if not isinstance(error, ForbiddenError | MissingError):
            return
        # Raises by itself where the slug is what is wrong.
        if not self._calls.competition(self._slug).entered:
            raise RemoteError(
                f"{self._slug}: this account has not accepted the competition's rules",
                hint=f"accept them on {SITE}/competitions/{self._slug}/rules (only a browser can), "
                "then run the same command again",
            ) from None
        raise RemoteError(
            f"{self._slug}: refused although the rules are accepted ({error.message})",
            hint="is the account's phone verified, and is the competition still open?",
        ) from None


def link_of(answer: Any) -> str:
    """Return the link of a redirecting RPC; raise RemoteError where there is none."""
    if not isinstance(answer, str):
        raise RemoteError("Kaggle gave no download link")
    return answer


def _submission(item: dict[str, Any]) -> Submission:
    return Submission(
        ref=count(item.get("ref")),
        status=words(item.get("status")) or UNKNOWN,
        public=score(item.get("publicScore")),
        private=score(item.get("privateScore")),
        description=words(item.get("description")),
        error=words(item.get("errorDescription")),
        at=moment(item.get("date")),
    )

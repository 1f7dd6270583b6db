"""Score a submission as Kaggle does: public and private, or a scoring error."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from kagflow.errors import DataError
from kagflow.task.score import score_files

if TYPE_CHECKING:
    from pathlib import Path

    from kagflow.task.score import Score
    from kagflow.task.spec import TaskSpec


class ScoringError(DataError):
    """Report a submission that Kaggle would answer with 'Submission Scoring Error'."""


@dataclass(frozen=True)
class Scored:
    """Hold both leaderboards' scores; they are equal where the solution has no Usage column.

    `private` is None where the solution keeps that part sealed.
    """

    public: Score
    private: Score | None


def score_submission(submission: Path, solution: Path, spec: TaskSpec) -> Scored:
    """Score a submission CSV against a solution CSV.

    Raises ScoringError for a submission that is missing or wrong.
    """
    if not submission.is_file():
        raise ScoringError(
            f"Scoring Error: {submission.name} was not written",
            hint="The kernel has to leave the file in its working folder.",
        )
    try:
        scores = score_files(submission, solution, spec)
    except DataError as fault:
        raise ScoringError(f"Scoring Error: {fault}", hint=fault.hint) from None
    whole = scores["all"]
    sealed = "Public" in scores and "Private" not in scores
    private = None if sealed else scores.get("Private", whole)
    return Scored(public=scores.get("Public", whole), private=private)

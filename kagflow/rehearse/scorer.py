"""Score a submission as Kaggle does: public and private, or a scoring error."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from kagflow import process
from kagflow.errors import DataError, KagflowError
from kagflow.task.metric import METRICS
from kagflow.task.score import Score, score_files
from kagflow.task.spec import TaskSpec

# What a metric of one's own may take for a whole solution.
SECONDS = 600.0


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


def score_with(code: Sequence[Path], submission: Path, solution: Path, spec: TaskSpec) -> Scored:
    """Score with a metric that may be one's own, a function in a package in one of these folders.

    That one is called in a process of its own: its code is read as it stands now, and whatever it
    does ends there. Raises ScoringError also where the metric is not found, raises or is late.
    """
    if spec.metric in METRICS:
        return score_submission(submission, solution, spec)
    asked = {
        "code": [str(one) for one in code],
        "files": [str(submission), str(solution)],
        "spec": spec.to_dict(),
    }
    words = [sys.executable, "-m", "kagflow.rehearse.scorer"]
    try:
        done = process.run(words, stdin=json.dumps(asked), timeout=SECONDS, check=False)
    except KagflowError as error:
        raise ScoringError(f"Scoring Error: metric {spec.metric}: {error.message}") from None
    if done.returncode:
        said = next(iter(reversed(done.stderr.strip().splitlines())), "it ended without a word")
        raise ScoringError(f"Scoring Error: metric {spec.metric}: {said}")
    # The metric may print, too.
    return _read(json.loads(done.stdout.splitlines()[-1]))


def _read(told: dict[str, Any]) -> Scored:
    if "fault" in told:
        raise ScoringError(told["fault"], hint=told["hint"])
    public, private = (
        Score(**{**one, "per_class": tuple(one["per_class"])}) if one else None
        for one in (told["public"], told["private"])
    )
    assert public
    return Scored(public, private)


def main() -> None:
    """Score what standard input asks for; write the scores, or the fault, as the last line."""
    asked = json.load(sys.stdin)
    sys.path[:0] = asked["code"]
    submission, solution = map(Path, asked["files"])
    try:
        told = asdict(score_submission(submission, solution, TaskSpec.from_dict(asked["spec"])))
    except ScoringError as fault:
        told = {"fault": fault.message, "hint": fault.hint}
    except KagflowError as fault:
        told = {"fault": f"Scoring Error: {fault.message}", "hint": fault.hint}
    sys.stdout.write("\n" + json.dumps(told) + "\n")


if __name__ == "__main__":
    main()

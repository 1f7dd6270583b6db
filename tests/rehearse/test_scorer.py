from __future__ import annotations

import pytest

from kagflow.errors import DataError
from kagflow.rehearse.scorer import ScoringError, score_submission
from kagflow.task.spec import TaskSpec

SPEC = TaskSpec("s", "segmentation", ("1",))
SOLUTION = (
    "ImageId,ClassId,EncodedPixels,Usage,Height,Width\n"
    "x,1,1 4,Public,2,3\ny,1,,Private,2,3\nz,1,2 2,Private,2,3\n"
)


@pytest.fixture
def files(tmp_path):
    (tmp_path / "solution.csv").write_text(SOLUTION)
    (tmp_path / "submission.csv").write_text("ImageId,ClassId,EncodedPixels\nx,1,3 4\ny,1,\nz,1,\n")
    return tmp_path / "submission.csv", tmp_path / "solution.csv"


def test_public_and_private_are_scored_apart(files):
    scored = score_submission(*files, SPEC)
    assert (scored.public.value, scored.public.images) == (0.5, 1)
    assert (scored.private.value, scored.private.floor, scored.private.images) == (0.5, 0.5, 2)


def test_without_usage_both_are_the_whole(files):
    submission, solution = files
    solution.write_text("ImageId,ClassId,EncodedPixels\nx,1,1 4\ny,1,\nz,1,2 2\n")
    scored = score_submission(submission, solution, SPEC)
    assert scored.public == scored.private
    assert scored.public.images == 3


@pytest.mark.parametrize("content", [None, "", "ImageId,ClassId,EncodedPixels\nx,1,0 1\n", "a,b\n"])
def test_a_bad_submission_is_a_scoring_error(files, content):
    submission, solution = files
    submission.unlink()
    if content is not None:
        submission.write_text(content)
    with pytest.raises(ScoringError, match=r"^Scoring Error: ") as caught:
        score_submission(submission, solution, SPEC)
    assert caught.value.hint
    assert isinstance(caught.value, DataError)

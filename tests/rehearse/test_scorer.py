from __future__ import annotations

from dataclasses import replace

import pytest

from kagflow.errors import DataError
from kagflow.rehearse.scorer import ScoringError, score_submission, score_with
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


OWN = replace(SPEC, metric="rolls.metrics:half")
HALF = """
def half(intersection, predicted, true):
    print("a metric may talk", end="")
    return {} * (predicted == true)
"""


@pytest.fixture
def metric(tmp_path):
    """Write the body of a competition's own metric."""
    folder = tmp_path / "competitions" / "rolls"
    folder.mkdir(parents=True)
    return (folder / "metrics.py").write_text


@pytest.mark.parametrize("worth", [0.5, 0.25])
def test_a_metric_of_ones_own_is_one_function(files, metric, worth):
    metric(HALF.format(worth))
    code = files[0].parent / "competitions"
    scored = score_with([code], *files, OWN)
    assert (scored.public.value, scored.public.per_class) == (worth, (worth,))
    assert (scored.private.value, scored.private.floor) == (worth / 2, worth / 2)
    # Its file is read anew each time.
    metric(HALF.format(1.0))
    assert score_with([code], *files, OWN).private.value == 0.5


def test_what_a_metric_of_ones_own_can_not_do_is_a_scoring_error(files, metric):
    code = files[0].parent / "competitions"
    metric("def half(intersection, predicted, true):\n    return intersection @ 'x'\n")
    with pytest.raises(ScoringError, match=r"^Scoring Error: metric rolls.metrics:half: .*Error"):
        score_with([code], *files, OWN)
    metric("import os\n\n\ndef half(*counts):\n    os._exit(3)\n")
    with pytest.raises(ScoringError, match="ended without a word"):
        score_with([code], *files, OWN)
    metric("def hafl(*counts):\n    return 1\n")
    with pytest.raises(ScoringError, match="has no 'half'") as caught:
        score_with([code], *files, OWN)
    assert "hafl" in caught.value.hint


def test_a_bad_submission_is_told_beside_a_metric_of_ones_own_too(files, metric):
    metric(HALF.format(1.0))
    files[0].write_text("ImageId,ClassId,EncodedPixels\nx,1,0 1\n")
    with pytest.raises(ScoringError, match=r"^Scoring Error: ") as caught:
        score_with([files[0].parent / "competitions"], *files, OWN)
    assert caught.value.hint

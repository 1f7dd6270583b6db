from __future__ import annotations

import numpy as np
import pytest

from kagflow.errors import DataError
from kagflow.task import rle, score
from kagflow.task.spec import TaskSpec

SPEC = TaskSpec("s", "segmentation", ("1", "2"))
KINDS = TaskSpec("s", "classification", ("a", "b"), value_column="Labels", metric="exact_match")
SOLUTION = """ImageId,ClassId,EncodedPixels,Usage,Height,Width
x,1,1 4,Public,2,3
x,2,,Public,2,3
y,1,,Private,2,3
y,2,2 1,Private,2,3
z,1,,Private,2,3
z,2,,Private,2,3
"""
SUBMISSION = "ImageId,ClassId,EncodedPixels\nz,1,\nz,2,1 1\nx,1,3 4\nx,2,\ny,1,\ny,2,2 1\n"


@pytest.fixture
def files(tmp_path):
    solution, submission = tmp_path / "solution.csv", tmp_path / "submission.csv"
    solution.write_text(SOLUTION)
    submission.write_text(SUBMISSION)
    return submission, solution


def test_known_answer_by_usage(files):
    scores = score.score_files(*files, SPEC)
    assert list(scores) == ["all", "Public", "Private"]
    # x: dice 2*2/8 and 1; y: 1 and 1; z: 1 and 0.
    assert scores["all"] == score.Score(
        value=4.5 / 6, per_class=(2.5 / 3, 2 / 3), nonempty=1.5 / 2, floor=4 / 6, images=3
    )
    assert scores["Public"] == score.Score(0.75, (0.5, 1), 0.5, 0.5, 1)
    assert scores["Private"] == score.Score(0.75, (1, 0.5), 1, 0.75, 2)


def test_without_usage_there_is_one_score(files):
    submission, solution = files
    solution.write_text("ImageId,ClassId,EncodedPixels\n" + SOLUTION.split("\n", 1)[1])
    rows = [line.split(",")[:3] for line in SOLUTION.splitlines()]
    solution.write_text("\n".join(",".join(row) for row in rows) + "\n")
    assert list(score.score_files(submission, solution, SPEC)) == ["all"]


def test_truth_scores_one_and_empty_scores_the_floor(files):
    submission, solution = files
    rows = [line.split(",")[:3] for line in SOLUTION.splitlines()]
    submission.write_text("\n".join(",".join(row) for row in rows) + "\n")
    found = score.score_files(submission, solution, SPEC)["all"]
    assert (found.value, found.nonempty) == (1, 1)
    submission.write_text("\n".join([",".join(r[:2]) + "," for r in rows[1:]]))
    submission.write_text("ImageId,ClassId,EncodedPixels\n" + submission.read_text())
    empty = score.score_files(submission, solution, SPEC)
    assert all(one.value == one.floor for one in empty.values())
    assert empty["all"].nonempty == 0


def test_the_joined_form_scores_the_same(files):
    submission, solution = files
    before = score.score_files(submission, solution, SPEC)
    rows = [line.split(",") for line in SUBMISSION.splitlines()[1:]]
    joined = "".join(f"{i}_{c},{pixels}\n" for i, c, pixels in rows)
    submission.write_text("ImageId_ClassId,EncodedPixels\n" + joined)
    assert score.score_files(submission, solution, SPEC) == before


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ("z,2,1 1\n", "", "1 rows missing, 0 too many: z class 2 is missing"),
        ("z,2,1 1\n", "z,2,1 1\nw,1,\n", "0 rows missing, 1 too many: w class 1"),
        ("z,2,1 1\n", "z,2,1 1\nz,2,1 1\n", "comes twice"),
        ("z,2,1 1", "z,2,6 2", "ends at pixel 7"),
        ("z,2,1 1", "z,7,1 1", "unknown class '7'"),
        ("z,2,1 1", "z,2,nan", "'nan'"),
    ],
)
def test_an_invalid_submission_is_refused(files, old, new, says):
    submission, solution = files
    submission.write_text(SUBMISSION.replace(old, new))
    with pytest.raises(DataError) as caught:
        score.score_files(submission, solution, SPEC)
    assert says in str(caught.value)


def test_classification_counts_are_zero_or_one(tmp_path):
    solution, submission = tmp_path / "solution.csv", tmp_path / "submission.csv"
    solution.write_text("ImageId,Labels,Usage\nx,a b,Public\ny,,Private\nz,a,Private\n")
    submission.write_text("ImageId,Labels\nx,b a\ny,a\nz,a\n")
    scores = score.score_files(submission, solution, KINDS)
    assert scores["all"] == score.Score(2 / 3, (2 / 3, 1), 1, 1 / 3, 3)
    assert scores["Public"].value == 1
    dice = TaskSpec("s", "classification", ("a", "b"), value_column="Labels")
    assert score.score_files(submission, solution, dice)["all"].value == 5 / 6


def test_scores_agree_with_masks_by_brute_force():
    rng = np.random.default_rng(0)
    true, predicted, expected = {}, {}, []
    for n in range(60):
        masks = rng.random((2, 2, 6, 9)) < rng.choice([0, 0.2, 0.6], (2, 2, 1, 1))
        for found, side in zip((true, predicted), masks, strict=True):
            found[str(n)] = {c: rle.encode(m) for c, m in enumerate(side) if m.any()}
        for t, p in zip(*masks, strict=True):
            expected.append(2 * (t & p).sum() / (t.sum() + p.sum()) if t.any() or p.any() else 1)
    found = score.score_rows(predicted, true, SPEC)
    assert found.value == pytest.approx(np.mean(expected), abs=1e-12)
    assert found.per_class == pytest.approx((np.mean(expected[::2]), np.mean(expected[1::2])))


def test_nothing_to_score_is_a_data_error():
    with pytest.raises(DataError, match="no image"):
        score.score_rows({}, {}, SPEC)
    clean = score.score_rows({}, {"x": {}}, SPEC)
    assert clean == score.Score(1, (1, 1), None, 1, 1)


def test_strange_usage_is_refused(files):
    submission, solution = files
    solution.write_text(SOLUTION.replace("Public", "public"))
    with pytest.raises(DataError, match=r"Usage \['public'\]"):
        score.score_files(submission, solution, SPEC)


def test_ignored_rows_are_asked_for_and_never_scored(files):
    submission, solution = files
    before = score.score_files(submission, solution, SPEC)
    solution.write_text(SOLUTION.replace("Private", "Ignored"))
    scores = score.score_files(submission, solution, SPEC)
    assert list(scores) == ["all", "Public"]
    assert scores["all"] == scores["Public"] == before["Public"]
    submission.write_text(SUBMISSION.replace("z,1,\n", ""))
    with pytest.raises(DataError, match="1 rows missing"):
        score.score_files(submission, solution, SPEC)
    submission.write_text(SUBMISSION)
    solution.write_text(SOLUTION.replace("Private", "Ignored").replace("Public", "Ignored"))
    with pytest.raises(DataError, match="no image to score"):
        score.score_files(submission, solution, SPEC)

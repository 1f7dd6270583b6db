from __future__ import annotations

import pytest

from kagflow.errors import DataError
from kagflow.task import score, truth
from kagflow.task.spec import TaskSpec

SPEC = TaskSpec("s", "segmentation", ("1", "2"))
ONE_SIZE = TaskSpec("s", "segmentation", ("1", "2"), height=2, width=3)
HEADER = "ImageId,ClassId,EncodedPixels"
WHOLE = f"{HEADER}\nx,1,1 4\nx,2,\ny,1,\ny,2,\n"
SUBMISSION = f"{HEADER}\nx,1,1 4\nx,2,\ny,1,\ny,2,1 1\n"


@pytest.fixture
def read(tmp_path):
    def run(content, spec=SPEC):
        path = tmp_path / "solution.csv"
        path.write_text(content)
        return truth.read_truth(path, spec)

    return run


@pytest.mark.parametrize(
    "content",
    [
        WHOLE,
        f"{HEADER}\nx,1,1 4\ny,1,\n",
        f"{HEADER}\nx,1,1 4\ny,,\n",
        f"{HEADER}\ny,,\nx,1,1 4\n",
        "ImageId_ClassId,EncodedPixels\nx_1,1 4\ny_2,\n",
        "ImageId_ClassId,EncodedPixels\nx_1,1 4\ny_,\n",
    ],
)
def test_a_clean_image_may_be_listed_in_any_way(read, tmp_path, content):
    found = read(content)
    assert found.labels == {"x": {0: "1 4"}, "y": {}}
    assert found.empty_rows
    path = tmp_path / "submission.csv"
    path.write_text(SUBMISSION)
    scores = score.score_files(path, found.path, SPEC)
    assert scores["all"].value == 0.75
    assert scores["all"].images == 2
    path.write_text(SUBMISSION.replace("y,1,\n", ""))
    with pytest.raises(DataError, match="1 rows missing, 0 too many: y class 1"):
        score.score_files(path, found.path, SPEC)


def test_masks_alone_can_be_completed_with_clean_images(read):
    found = read(f"{HEADER}\nx,1,1 4\n")
    assert not found.empty_rows
    whole = found.with_clean(["y", "x"])
    assert whole.labels == {"x": {0: "1 4"}, "y": {}}
    assert list(whole.keys(SPEC)) == [("x", "1"), ("x", "2"), ("y", "1"), ("y", "2")]


@pytest.mark.parametrize(
    ("rows", "says"),
    [
        (
            "x,1,,Public,2,3\nx,2,,Private,2,3\n",
            "line 3: x has Usage 'Private', in line 2 'Public'",
        ),
        ("x,1,,Public,2,3\nx,2,,Public,2,4\n", "line 3: x has Width '4'"),
        ("x,1,,Public,2,\n", "line 2: x is '2' high and '' wide"),
        ("x,1,,Public,0,3\n", "line 2: x is '0' high"),
        ("x,1,,Public,2.0,3\n", "line 2: x is '2.0' high"),
        ("x,1,5 3,Public,2,3\n", "line 2: run lengths, pair 1: 5 3 ends at pixel 7"),
        ("x,,1 1,Public,2,3\n", "line 2: x: unknown class ''"),
        ("x,1,,public,2,3\n", "Usage .'public'."),
    ],
)
def test_a_solution_that_contradicts_itself_is_refused(read, rows, says):
    with pytest.raises(DataError, match=says):
        read(f"{HEADER},Usage,Height,Width\n{rows}")


def test_masks_must_fit_images_of_their_own_size(read, tmp_path):
    found = read(f"{HEADER},Height,Width\nx,1,1 6,2,3\nx,2,,2,3\ny,1,100 1,20,30\ny,2,,20,30\n")
    assert found.sizes == {"x": (2, 3), "y": (20, 30)}
    path = tmp_path / "submission.csv"
    path.write_text(f"{HEADER}\nx,1,1 6\nx,2,\ny,1,100 1\ny,2,\n")
    assert score.score_files(path, found.path, SPEC)["all"].value == 1
    path.write_text(f"{HEADER}\nx,1,1 7\nx,2,\ny,1,100 1\ny,2,\n")
    with pytest.raises(DataError, match="ends at pixel 7"):
        score.score_files(path, found.path, SPEC)


def test_one_size_of_the_competition_is_enough(read, tmp_path):
    found = read(WHOLE, ONE_SIZE)
    path = tmp_path / "submission.csv"
    path.write_text(SUBMISSION.replace("1 4", "1 7"))
    with pytest.raises(DataError, match="ends at pixel 7"):
        score.score_files(path, found.path, ONE_SIZE)
    with pytest.raises(DataError, match="ends at pixel 7"):
        read(WHOLE.replace("1 4", "1 7"), ONE_SIZE)

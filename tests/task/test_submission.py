from __future__ import annotations

import pytest

from kagflow.errors import DataError
from kagflow.task import submission
from kagflow.task.check import check_submission
from kagflow.task.spec import TaskSpec

SPEC = TaskSpec("s", "segmentation", ("1", "2"))
KINDS = TaskSpec("s", "classification", ("a", "b"), value_column="Labels")
SEPARATE = "ImageId,ClassId,EncodedPixels\nz.jpg,1,1 1\nz.jpg,2,1 1\na.jpg,1,1 1\na.jpg,2,1 1\n"
JOINED = "ImageId_ClassId,EncodedPixels\nz.jpg_1,\nz.jpg_2,\na.jpg_1,\na.jpg_2,\n"
FOUND = {"a.jpg": {1: "2 3"}, "z.jpg": {0: "1 1", 1: "5 1"}}


@pytest.fixture
def sample(tmp_path):
    path = tmp_path / "sample_submission.csv"
    path.write_text(SEPARATE)
    return path


def test_rows_are_written_in_the_samples_form_and_order(tmp_path, sample):
    out = tmp_path / "submission.csv"
    written = submission.write(out, FOUND, SPEC, sample)
    lines = [
        "ImageId,ClassId,EncodedPixels",
        "z.jpg,1,1 1",
        "z.jpg,2,5 1",
        "a.jpg,1,",
        "a.jpg,2,2 3",
    ]
    assert out.read_bytes() == ("\n".join(lines) + "\n").encode()
    assert written == submission.Written(rows=4, missing=(), extra=())
    sample.write_text(JOINED)
    submission.write(out, FOUND, SPEC, sample)
    lines = [
        "ImageId_ClassId,EncodedPixels",
        "z.jpg_1,1 1",
        "z.jpg_2,5 1",
        "a.jpg_1,",
        "a.jpg_2,2 3",
    ]
    assert out.read_bytes() == ("\n".join(lines) + "\n").encode()
    assert submission.read_submission(out, SPEC) == {"z.jpg": FOUND["z.jpg"], "a.jpg": {1: "2 3"}}
    assert check_submission(out, SPEC, sample) == []


def test_a_sample_with_placeholder_classes_stands_for_all_classes(tmp_path, sample):
    sample.write_text("ImageId,EncodedPixels,ClassId\nz.jpg,1 1,0\na.jpg,1 1,0\n")
    out = tmp_path / "submission.csv"
    submission.write(out, FOUND, SPEC, sample)
    lines = [
        "ImageId,EncodedPixels,ClassId",
        "z.jpg,1 1,1",
        "z.jpg,5 1,2",
        "a.jpg,,1",
        "a.jpg,2 3,2",
    ]
    assert out.read_text().split() == " ".join(lines).split()
    assert check_submission(out, SPEC, sample) == []


def test_classification_writes_labels(tmp_path, sample):
    sample.write_text("ImageId,Labels\nq.png,a\np.png,a\n")
    out = tmp_path / "submission.csv"
    submission.write(out, {"q.png": {1: "", 0: ""}}, KINDS, sample)
    assert out.read_text() == "ImageId,Labels\nq.png,a b\np.png,\n"
    assert submission.read_submission(out, KINDS) == {"q.png": {0: "", 1: ""}, "p.png": {}}
    assert check_submission(out, KINDS, sample) == []


def test_missing_and_surplus_images_are_told(tmp_path, sample):
    out = tmp_path / "submission.csv"
    written = submission.write(out, {"a.jpg": {}, "b.jpg": {0: "1 1"}}, SPEC, sample)
    assert written == submission.Written(rows=4, missing=("z.jpg",), extra=("b.jpg",))
    assert "b.jpg" not in out.read_text()


def test_an_empty_submission_is_valid(tmp_path, sample):
    out = tmp_path / "submission.csv"
    submission.write_empty(out, SPEC, sample)
    assert submission.read_submission(out, SPEC) == {"z.jpg": {}, "a.jpg": {}}
    assert check_submission(out, SPEC, sample) == []


def test_an_exception_leaves_what_was_there(tmp_path, sample):
    out = tmp_path / "submission.csv"
    out.write_text("before")
    with pytest.raises(TypeError), submission.Writer(out, SPEC, sample) as writer:
        writer.add("a.jpg", None)
    assert out.read_text() == "before"
    with submission.Writer(out, SPEC, sample) as writer:
        writer.add("a.jpg", {0: "1 1"})
    assert "a.jpg,1,1 1" in out.read_text()


def test_reading_raises_at_the_first_bad_row(tmp_path):
    path = tmp_path / "submission.csv"
    path.write_text("ImageId,ClassId,EncodedPixels\nz.jpg,1,0 1\nz.jpg,2,x\n")
    with pytest.raises(DataError, match="line 2"):
        submission.read_submission(path, SPEC)

"""The survey: every fault named, every repetition told, folds whole, nothing decoded twice."""

from __future__ import annotations

import csv

import cv2
import numpy as np
import pytest

from kagflow.errors import DataError, RefusedError
from kagflow.task import index
from kagflow.task.folds import read_folds
from kagflow.task.spec import TaskSpec
from kagflow.task.survey import survey
from kagflow.task.surveyed import Plan

SPEC = TaskSpec("s", "segmentation", ("1", "2"), height=32, width=48)
HEADER = "ImageId,ClassId,EncodedPixels\n"


def picture(seed, shape=(32, 48)):
    rng = np.random.default_rng(seed)
    return cv2.GaussianBlur(rng.integers(0, 256, shape, np.uint8), (0, 0), 2)


@pytest.fixture
def data(tmp_path):
    folder = tmp_path / "data" / "train_images"
    folder.mkdir(parents=True)
    for number in range(8):
        assert cv2.imwrite(str(folder / f"{number}.png"), picture(number))
    rows = "".join(f"{number}.png,{1 + number % 2},1 {5 + number}\n" for number in range(6))
    (folder.parent / "train.csv").write_text(HEADER + rows)
    return folder.parent


def look(data, *, folds=2, dirt="skip", version="v", spec=SPEC):
    return survey(data, spec, Plan(folds, dirt=dirt), version=version)


def cases(data):
    with (data / "dirt.csv").open() as file:
        return [
            (row["kind"], row["image_id"], row["other"], row["line"])
            for row in csv.DictReader(file)
        ]


def add_rows(data, *rows):
    with (data / "train.csv").open("a") as file:
        file.writelines(f"{row}\n" for row in rows)


def test_clean_data_has_an_index_folds_and_nothing_to_tell(data) -> None:
    made = look(data, dirt="fail")
    assert (made.images, made.clusters, made.folds, made.skipped) == (8, 8, 2, 0)
    assert made.dirt == {}
    assert cases(data) == []
    rows = index.read_index(data / "index.csv")
    assert all(row.pixels and row.bits == 8 for row in rows.values())
    assert look(data).already
    assert not (data / ".index.work").exists()


def test_f14_a_corrupt_file_fails_by_default_and_is_listed(data) -> None:
    (data / "train_images/3.png").write_bytes(b"")
    (data / "train_images/5.png").write_bytes(b"<html>")
    with pytest.raises(DataError, match=r"3\.png is not a whole image.*1 more") as caught:
        look(data, dirt="fail")
    assert "dirt: skip" in caught.value.hint
    assert [case[:2] for case in cases(data)] == [("corrupt", "3.png"), ("corrupt", "5.png")]
    assert not (data / "folds.csv").exists()


def test_f14_skip_leaves_corrupt_files_out_of_every_fold(data) -> None:
    (data / "train_images/3.png").write_bytes(b"")
    made = look(data)
    assert (made.images, made.skipped, made.dirt) == (8, 1, {"corrupt": 1})
    assert "3.png" not in read_folds(data / "folds.csv")
    assert "3.png" not in index.read_index(data / "index.csv")
    assert look(data).dirt == {"corrupt": 1}


def test_f14_size_and_depth_are_told(data) -> None:
    assert cv2.imwrite(str(data / "train_images/8.png"), picture(8, (30, 48)))
    assert cv2.imwrite(str(data / "train_images/9.png"), picture(9).astype(np.uint16) * 257)
    assert look(data, dirt="fail").dirt == {"size": 1, "depth": 1}
    assert [case[:2] for case in cases(data)] == [("size", "8.png"), ("depth", "9.png")]


def test_f14_a_missing_image_is_a_row_that_cannot_be_used(data) -> None:
    (data / "train_images/2.png").unlink()
    with pytest.raises(DataError, match=r"line 4: 2\.png: there is no such image"):
        look(data, dirt="fail")
    assert look(data).dirt == {"label": 1}


@pytest.mark.parametrize(
    ("row", "says"),
    [
        ("6.png,1,1 2 3", "pair 2: start 3 has no length"),
        ("6.png,1,9 2 3 1", "pair 2: start 3 is not sorted"),
        ("6.png,1,3 4 5 1", "pair 2: start 5 overlaps"),
        ("6.png,1,1 1 1530 9", "pair 2: 1530 9 ends at pixel 1538 of an image of 1536"),
        ("6.png,7,1 1", "unknown class '7'"),
        ("5.png,2,1 1", "comes twice"),
        ("nobody.png,2,1 1", "no such image"),
    ],
)
def test_f15_every_bad_row_is_named_by_line_and_pair(data, row, says) -> None:
    add_rows(data, row, "7.png,9,1 1")
    with pytest.raises(DataError) as caught:
        look(data, dirt="fail")
    assert "line 8" in caught.value.message
    assert says in caught.value.message
    assert "1 more" in caught.value.message
    image = row.partition(",")[0]
    assert cases(data) == [
        ("label", *pair) for pair in sorted([("7.png", "", "9"), (image, "", "8")])
    ]
    kept = read_folds(data / "folds.csv") if look(data).skipped else {}
    assert image not in kept
    assert "7.png" not in kept


def test_f17_repetitions_and_overlaps_are_told_and_share_a_fold(data) -> None:
    folder = data / "train_images"
    for name in ("8.png", "9.png"):
        assert cv2.imwrite(str(folder / name), picture(0))
    assert cv2.imwrite(str(folder / "near.jpg"), picture(1), [cv2.IMWRITE_JPEG_QUALITY, 90])
    add_rows(data, "8.png,1,1 5", "9.png,2,7 7", "7.png,1,10 5", "7.png,2,12 5")
    made = look(data, dirt="fail")
    assert made.dirt == {"conflict": 1, "duplicate": 1, "near": 1, "overlap": 1}
    assert [case[:3] for case in cases(data)] == [
        ("conflict", "9.png", "0.png"),
        ("duplicate", "8.png", "0.png"),
        ("near", "near.jpg", "1.png"),
        ("overlap", "7.png", ""),
    ]
    split = read_folds(data / "folds.csv")
    assert split["0.png"] == split["8.png"] == split["9.png"]
    assert split["1.png"] == split["near.jpg"]


def test_other_folds_are_refused(data) -> None:
    look(data)
    with pytest.raises(RefusedError, match="2 folds"):
        look(data, folds=3)


class Counter:
    """Count what is decoded, and stop after some."""

    def __init__(self, monkeypatch, stop=None) -> None:
        self.names, self.stop, real = [], stop, index._try_image

        def counted(file):
            if self.stop is not None and len(self.names) >= self.stop:
                raise KeyboardInterrupt
            self.names.append(file.name)
            return real(file)

        monkeypatch.setattr(index, "_try_image", counted)
        monkeypatch.setattr(index, "CHUNK", 2)


def test_an_interrupted_survey_goes_on_where_it_was(data, monkeypatch) -> None:
    counter = Counter(monkeypatch, stop=5)
    with pytest.raises(KeyboardInterrupt):
        look(data)
    assert (data / ".index.work").exists()
    first, counter.stop = list(counter.names), None
    # A kill tears the last line.
    work = data / ".index.work"
    work.write_bytes(work.read_bytes() + b'\n["7.png", 12')
    made = look(data)
    again = counter.names[len(first) :]
    assert made.images == 8
    assert len(again) == 4
    assert not set(again) & set(first[:4])
    rows = index.read_index(data / "index.csv")
    assert rows == {row.image_id: row for row in index.build_index(data / "train_images")}


@pytest.mark.parametrize("change", ["version", "image"])
def test_what_changed_since_is_decoded_again(data, monkeypatch, change) -> None:
    counter = Counter(monkeypatch, stop=6)
    with pytest.raises(KeyboardInterrupt):
        look(data)
    counter.stop, counter.names = None, []
    if change == "image":
        assert cv2.imwrite(str(data / "train_images/0.png"), picture(77))
    look(data, version="v" if change == "image" else "w")
    assert "0.png" in counter.names
    assert len(counter.names) == (3 if change == "image" else 8)
    rows = index.read_index(data / "index.csv")
    assert rows == {row.image_id: row for row in index.build_index(data / "train_images")}


def test_an_index_of_an_earlier_version_is_read(data) -> None:
    (data / "index.csv").write_text("image_id,height,width,phash\na.png,3,4,000000000000000f\n")
    assert index.read_index(data / "index.csv") == {"a.png": index.ImageRow("a.png", 3, 4, 15)}

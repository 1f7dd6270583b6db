from __future__ import annotations

import pytest

from kagflow.errors import DataError
from kagflow.task import rle
from kagflow.task.check import PAIRS_TOLD, check_submission
from kagflow.task.loose import Fault
from kagflow.task.spec import TaskSpec

SPEC = TaskSpec("s", "segmentation", ("1", "2"))
ONE_SIZE = TaskSpec("s", "segmentation", ("1", "2"), height=2, width=3)
KINDS = TaskSpec("s", "classification", ("a", "b"), value_column="Labels")
EXCLUSIVE = TaskSpec("s", "classification", ("a", "b"), value_column="Labels", exclusive=True)
SEPARATE = "ImageId,ClassId,EncodedPixels\nz.jpg,1,1 1\nz.jpg,2,1 1\na.jpg,1,1 1\na.jpg,2,1 1\n"
JOINED = "ImageId_ClassId,EncodedPixels\nz.jpg_1,\nz.jpg_2,\na.jpg_1,\na.jpg_2,\n"
SIZES = {"z.jpg": (2, 3), "a.jpg": (2, 3)}


@pytest.fixture
def check(tmp_path):
    """Check content against a sample; return what a fault says of it, in order."""

    def run(content, *, sample=SEPARATE, spec=SPEC, sizes=SIZES):
        asked, path = tmp_path / "sample.csv", tmp_path / "submission.csv"
        asked.write_text(sample)
        path.unlink(missing_ok=True)
        if content is not None:
            path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return check_submission(path, spec, asked, sizes)

    return run


@pytest.mark.parametrize(
    ("content", "row", "kind", "says"),
    [
        (b"\xef\xbb\xbf" + SEPARATE.encode(), 1, "bom", "byte order mark"),
        (SEPARATE.replace("\n", "\r\n"), 1, "crlf", "CRLF"),
        (SEPARATE.replace("\n", "\r"), 1, "crlf", "CR, not LF"),
        (SEPARATE.replace("z.jpg,2,1 1\n", ""), 0, "missing", "z.jpg class 2 is missing"),
        (SEPARATE + "b.jpg,1,\n", 6, "extra", "b.jpg class 1 is not asked for"),
        (SEPARATE + "a.jpg,2,\n", 6, "twice", "a.jpg class 2 stands in row 5 already"),
        (SEPARATE.replace("z.jpg,2,1 1", 'z.jpg,2,"nan"'), 3, "rle", "pair 1: 'nan'"),
        (SEPARATE.replace("z.jpg,2,1 1", "z.jpg,2,6 2"), 3, "rle", "pixel 7 of an image of 6"),
        (SEPARATE.replace("z.jpg,2,1 1", "z.jpg,2"), 3, "cells", "2 cells, the header has 3"),
        (SEPARATE.replace("z.jpg,2", "\nz.jpg,2"), 3, "cells", "is blank"),
        (SEPARATE.replace("z.jpg,2,1 1", 'z.jpg,2,"1 1'), 3, "quotes", "unexpected end"),
        (SEPARATE.replace("z.jpg,2,1 1", 'z.jpg,2,"1 1"x'), 3, "quotes", "not checked"),
        (b"", 0, "file", "is empty"),
        (b"\n\n", 0, "file", "is empty"),
        (None, 0, "file", "does not exist"),
        (b"a,b\nc,d\n", 1, "header", "the rows were not checked"),
        (SEPARATE.encode() + b"\xff\n", 6, "encoding", "byte 78 is not UTF-8"),
    ],
)
def test_each_fault_is_found_where_it_is(check, content, row, kind, says):
    faults = [fault for fault in check(content) if fault.kind == kind]
    assert faults, check(content)
    assert faults[0].row == row
    assert says in faults[0].what


@pytest.mark.parametrize(
    ("sample", "spec", "content"),
    [
        (SEPARATE, SPEC, SEPARATE),
        (SEPARATE, SPEC, SEPARATE.rstrip("\n")),
        (SEPARATE, SPEC, SEPARATE.replace("z.jpg,1,1 1", '"z.jpg","1",""')),
        (JOINED, SPEC, JOINED),
        ("ImageId,Labels\nq,\n", KINDS, "ImageId,Labels\nq,b a\n"),
        ("ImageId,Labels\nq,\n", EXCLUSIVE, "ImageId,Labels\nq,b\n"),
    ],
)
def test_a_good_one_has_no_fault(check, sample, spec, content):
    assert check(content, sample=sample, spec=spec) == []


def test_every_fault_is_listed_in_the_order_of_the_file(check):
    faults = check(
        "ImageId,ClassId,EncodedPixels\na.jpg,1,1 2 2 1 9 9\nz.jpg,7,x\nz.jpg,2,\nz.jpg,2,0 1.5 3\n"
    )
    assert [(fault.row, fault.kind) for fault in faults] == [
        *[(2, "rle")] * 2, (3, "class"), (3, "rle"), (4, "order"), (5, "rle"), (5, "rle"),
        (5, "rle"), (5, "twice"), (0, "missing"), (0, "missing"),
    ]  # fmt: skip
    assert [fault.what for fault in faults if fault.kind == "missing"] == [
        "z.jpg class 1 is missing",
        "a.jpg class 2 is missing",
    ]
    assert "pair 2: start 2 is not after pixel 2" in faults[0].what


def test_another_order_of_columns_is_one_fault_and_the_rows_are_read_by_name(check):
    lines = [line.split(",") for line in SEPARATE.splitlines()]
    swapped = "\n".join(",".join([row[2], row[0], row[1]]) for row in lines) + "\n"
    assert [fault.kind for fault in check(swapped)] == ["header"]
    index = "\n".join(f"{n or ''},{line}" for n, line in enumerate(SEPARATE.splitlines()))
    assert [fault.kind for fault in check(index)] == ["header"]
    assert [fault.kind for fault in check(JOINED)] == ["header"]


def test_a_row_with_too_many_cells_is_not_missing_too(check):
    faults = check(SEPARATE.replace("z.jpg,2,1 1", "z.jpg,2,1 1,9"))
    assert [(fault.row, fault.kind) for fault in faults] == [(3, "cells")]


def test_one_size_of_all_images_is_known_without_a_list(check):
    content = SEPARATE.replace("z.jpg,2,1 1", "z.jpg,2,6 2")
    assert [fault.kind for fault in check(content, spec=ONE_SIZE, sizes=None)] == ["rle"]
    assert check(content, spec=SPEC, sizes=None) == []


def test_labels_are_checked_one_by_one(check):
    sample = "ImageId,Labels\nq,\np,\n"
    faults = check("ImageId,Labels\nq,c a a\np,a  b\n", sample=sample, spec=KINDS)
    assert [(fault.row, fault.what.split(";")[0]) for fault in faults] == [
        (2, "unknown class 'c'"),
        (2, "class a is named twice"),
        (3, "unknown class ''"),
    ]
    faults = check("ImageId,Labels\nq,b a\np,\n", sample=sample, spec=EXCLUSIVE)
    assert [fault.what for fault in faults] == ["2 classes where an image has one"]


def test_a_mask_full_of_faults_is_told_once_and_counted(check):
    faults = check(SEPARATE.replace("z.jpg,2,1 1", "z.jpg,2," + " ".join(["0 1"] * 1000)))
    assert len(faults) == PAIRS_TOLD + 1
    assert faults[-1].what.endswith(f"{1000 - PAIRS_TOLD} more such faults")


def test_a_long_quoted_mask_is_read_whole(check, tmp_path):
    mask = " ".join(f"{at} 1" for at in range(1, 100_000, 2))
    assert len(mask) > 131_072
    sizes = {"z.jpg": (1000, 1000), "a.jpg": (2, 3)}
    assert check(SEPARATE.replace("z.jpg,2,1 1", f'z.jpg,2,"{mask}"'), sizes=sizes) == []


def test_a_line_break_inside_quotes_is_part_of_the_cell(check):
    faults = check(
        SEPARATE.replace("a.jpg,1,1 1", '"a\n.jpg",1,1 1').replace("z.jpg,2", '"z.jpg",2')
    )
    assert (4, "extra") in [(fault.row, fault.kind) for fault in faults]
    assert "'a\\n.jpg' class 1 is not asked for" in [fault.what for fault in faults]


def test_a_fault_says_its_row():
    assert str(Fault(3, "rle", "x")) == "row 3: x"
    assert str(Fault(0, "missing", "x")) == "x"


@pytest.mark.parametrize(
    "text", ["1 1", "", "1 2 2 1", "0 1", "1", "5 1 1 1", "1  1", " ", "7 1", "a b c", "1 1 3 9"]
)
def test_pairs_have_faults_where_reading_refuses_them(text):
    try:
        rle.runs(text, pixels=6)
        refused = False
    except DataError:
        refused = True
    assert bool(list(rle.faults(text, pixels=6))) == refused

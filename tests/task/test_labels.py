from __future__ import annotations

import pytest

from kagflow.errors import DataError
from kagflow.task.labels import read_labels
from kagflow.task.spec import TaskSpec

SPEC = TaskSpec("s", "segmentation", ("1", "2", "big_3"))
KINDS = TaskSpec("s", "classification", ("a", "b"), value_column="Labels")


def save(tmp_path, text):
    path = tmp_path / "train.csv"
    path.write_bytes(text.encode())
    return path


@pytest.mark.parametrize(
    "text",
    [
        "ImageId,ClassId,EncodedPixels\nx.jpg,1,1 2\nx.jpg,big_3,4 1\ny.jpg,2,\n",
        "ClassId,EncodedPixels,ImageId,more\n1,1 2,x.jpg,7\nbig_3,4 1,x.jpg,\n2,,y.jpg,\n",
        "ImageId_ClassId,EncodedPixels\nx.jpg_1,1 2\nx.jpg_2,\nx.jpg_big_3,4 1\ny.jpg_1,\n",
        "\ufeffImageId,ClassId,EncodedPixels\r\nx.jpg,1,1 2\r\nx.jpg,big_3,4 1\r\ny.jpg,2,\r\n",
        'ImageId,ClassId,EncodedPixels\n"x.jpg","1","1 2"\nx.jpg,big_3,4 1\ny.jpg,2,""\n',
    ],
)
def test_every_form_reads_alike(tmp_path, text):
    assert read_labels(save(tmp_path, text), SPEC) == {"x.jpg": {0: "1 2", 2: "4 1"}, "y.jpg": {}}


def test_classification_cells_hold_labels(tmp_path):
    path = save(tmp_path, "ImageId,Labels\nx.png,b a\ny.png,\n")
    assert read_labels(path, KINDS) == {"x.png": {0: "", 1: ""}, "y.png": {}}


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("ImageId,ClassId,EncodedPixels\nx.jpg,4,1 1\n", "line 2: x.jpg: unknown class '4'"),
        ("ImageId,ClassId,EncodedPixels\nx,1,1 1\nx,1,3 1\n", "line 3: x class 1 comes twice"),
        ("ImageId_ClassId,EncodedPixels\nx_1,\nx_1,\n", "line 3: x class 1 comes twice"),
        ("ImageId,ClassId,EncodedPixels\nx,1,1 1\ny,2,5\n", "line 3: run lengths, pair 1"),
        ("ImageId,ClassId,EncodedPixels\nx,1,9 2\n", "ends at pixel 10 of an image of 9"),
        ("ImageId,ClassId,EncodedPixels\nx,1\n", "line 2: 2 cells where the header has 3"),
        ("id,mask\nx,1 1\n", "columns 'id,mask'"),
        ("ImageId,ImageId,ClassId,EncodedPixels\nx,x,1,1 1\n", "columns"),
        ("", "is empty"),
    ],
)
def test_a_bad_file_names_its_line(tmp_path, text, says):
    with pytest.raises(DataError) as caught:
        read_labels(save(tmp_path, text), SPEC, sizes={"x": (3, 3)})
    assert says in str(caught.value)


def test_classification_faults(tmp_path):
    exclusive = TaskSpec("s", "classification", ("a", "b"), value_column="Labels", exclusive=True)
    path = save(tmp_path, "ImageId,Labels\nx,a b\n")
    assert read_labels(path, KINDS)
    with pytest.raises(DataError, match="names 2 classes"):
        read_labels(path, exclusive)
    with pytest.raises(DataError, match="twice"):
        read_labels(save(tmp_path, "ImageId,Labels\nx,a a\n"), KINDS)


def test_a_missing_or_binary_file_is_a_data_error(tmp_path):
    with pytest.raises(DataError, match="does not exist"):
        read_labels(tmp_path / "none.csv", SPEC)
    (tmp_path / "b.csv").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(DataError, match="UTF-8"):
        read_labels(tmp_path / "b.csv", SPEC)

from __future__ import annotations

import cv2
import numpy as np

from kagflow.task.sizes import known_sizes
from kagflow.task.spec import TaskSpec

VARIES = TaskSpec("s", "segmentation", ("1",))
ONE_SIZE = TaskSpec("s", "segmentation", ("1",), height=2, width=3)


def test_sizes_come_from_the_files_headers(tmp_path):
    folder = tmp_path / "test_images"
    folder.mkdir()
    for name, shape in (("a.png", (5, 7)), ("b.jpg", (20, 30)), ("c.bmp", (3, 4))):
        cv2.imwrite(str(folder / name), np.zeros(shape, np.uint8))
    whole = (folder / "b.jpg").read_bytes()
    (folder / "cut.jpg").write_bytes(whole[: len(whole) - 4])
    (folder / "text.png").write_text("no image")
    asked = ["a.png", "b.jpg", "c", "cut.jpg", "text.png", "gone.png"]
    assert known_sizes(tmp_path, VARIES, asked) == {
        "a.png": (5, 7),
        "b.jpg": (20, 30),
        "c": (3, 4),
        "cut.jpg": (20, 30),
    }


def test_one_size_needs_no_file(tmp_path):
    assert known_sizes(tmp_path, ONE_SIZE, ["x"]) == {"x": (2, 3)}
    assert known_sizes(tmp_path, VARIES, ["x"]) == {}

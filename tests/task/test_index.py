from __future__ import annotations

import cv2
import numpy as np
import pytest

from kagflow.errors import DataError
from kagflow.task import index


def texture(seed, shape=(64, 200)):
    rng = np.random.default_rng(seed)
    return cv2.GaussianBlur(rng.integers(0, 256, shape, np.uint8), (0, 0), 3) // 2 + 60


def save(folder, name, image, quality=95):
    folder.mkdir(exist_ok=True)
    assert cv2.imwrite(str(folder / name), image, [cv2.IMWRITE_JPEG_QUALITY, quality])


class Counting:
    def __init__(self):
        self.done, self.total = 0, None

    def start(self, label, total=None, unit=""):
        self.total = total

    def advance(self, n=1):
        self.done += n

    def note(self, text): ...

    def finish(self): ...


def test_rows_hold_names_and_sizes_in_order(tmp_path):
    for number, shape in enumerate([(64, 200), (30, 41), (64, 200)]):
        save(tmp_path / "t", f"{2 - number}.jpg", texture(number, shape))
    (tmp_path / "t" / "notes.txt").write_text("no image")
    (tmp_path / "t" / "._0.jpg").write_text("no image either")
    progress = Counting()
    rows = index.build_index(tmp_path / "t", progress)
    assert [(r.image_id, r.height, r.width) for r in rows] == [
        ("0.jpg", 64, 200), ("1.jpg", 30, 41), ("2.jpg", 64, 200),
    ]  # fmt: skip
    assert progress.done == progress.total == 3
    index.write_index(tmp_path / "index.csv", rows)
    assert index.read_index(tmp_path / "index.csv") == {row.image_id: row for row in rows}


def test_hash_is_near_for_copies_and_far_for_others(tmp_path):
    base = texture(0)
    copies = [
        cv2.convertScaleAbs(base, alpha=1.0, beta=4),
        np.clip(base + np.random.default_rng(1).normal(0, 2, base.shape), 0, 255).astype(np.uint8),
        cv2.imdecode(cv2.imencode(".jpg", base, [cv2.IMWRITE_JPEG_QUALITY, 70])[1], 0),
    ]
    here = index.perceptual_hash(base)
    for copy in copies:
        assert (here ^ index.perceptual_hash(copy)).bit_count() <= 4
    others = [(here ^ index.perceptual_hash(texture(n))).bit_count() for n in range(1, 60)]
    assert min(others) > 10


def test_hash_agrees_with_imagehash():
    imagehash = pytest.importorskip("imagehash")
    image = pytest.importorskip("PIL.Image")
    for seed in range(5):
        grey = texture(seed, (32, 32))
        theirs = imagehash.phash(image.fromarray(grey), highfreq_factor=4)
        assert (int(str(theirs), 16) ^ index.perceptual_hash(grey)).bit_count() <= 2


def test_flat_images_meet_only_where_they_are_equal():
    flat = [np.full((64, 200), level, np.uint8) for level in (100, 101, 180, 100)]
    hashes = [index.perceptual_hash(image) for image in flat]
    assert hashes[0] == hashes[3]
    assert min((hashes[0] ^ other).bit_count() for other in hashes[1:3]) > 4


@pytest.mark.parametrize("kind", ["jpg", "png"])
@pytest.mark.parametrize("cut", [0, 10, 0.5, 0.99])
def test_a_file_cut_short_is_named(tmp_path, kind, cut):
    save(tmp_path / "t", f"good.{kind}", texture(0))
    content = (tmp_path / "t" / f"good.{kind}").read_bytes()
    length = int(cut * len(content)) if isinstance(cut, float) else cut
    (tmp_path / "t" / f"torn.{kind}").write_bytes(content[:length])
    with pytest.raises(DataError, match=f"torn.{kind} is not a whole image"):
        index.build_index(tmp_path / "t")


def test_a_folder_without_images_is_a_data_error(tmp_path):
    for folder in (tmp_path, tmp_path / "none"):
        with pytest.raises(DataError, match="holds no images"):
            index.build_index(folder)


def test_a_bad_index_is_a_data_error(tmp_path):
    (tmp_path / "i.csv").write_text("image_id,height,width,phash\nx,1,two,0\n")
    with pytest.raises(DataError, match="two"):
        index.read_index(tmp_path / "i.csv")


def test_a_link_to_nowhere_is_a_data_error(tmp_path):
    (tmp_path / "gone.jpg").symlink_to(tmp_path / "nothing.jpg")
    with pytest.raises(DataError, match=r"gone\.jpg is unreadable: No such file"):
        index.build_index(tmp_path)

import zlib

import numpy as np
import pytest

from kagflow.errors import DataError, LocalError
from kagflow.infer.image import resize_probs
from kagflow.learn.oof import OofReader, OofWriter, quantise

FLOOR = 4 / 255


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "fold0" / "oof"


def maps(count=4):
    rng = np.random.default_rng(0)
    return {f"i{n}.jpg": rng.random((3, 16 + n, 24), np.float32) for n in range(count)}


def test_masks_come_back_within_half_a_step_in_any_order(folder):
    with OofWriter(folder, "mask", 3) as writer:
        for image_id, probs in maps().items():
            writer.add(image_id, probs, *probs.shape[1:])
    with OofReader(folder) as reader:
        assert reader.image_ids == tuple(maps())
        for image_id, probs in reversed(maps().items()):
            got = reader.mask(image_id)
            assert got.dtype == np.float32
            kept = probs >= FLOOR
            assert np.abs(got - probs)[kept].max() <= 1 / 510 + 1e-6
            assert np.abs(got - probs)[~kept].max() < FLOOR


def test_masks_are_resized_to_the_images_own_size(folder):
    probs = maps(1)["i0.jpg"]
    with OofWriter(folder, "mask", 3) as writer:
        writer.add("a", probs, 40, 50)
    with OofReader(folder) as reader:
        assert reader.size("a") == (40, 50)
        assert np.abs(reader.mask("a") - resize_probs(probs, (40, 50))).max() < FLOOR
        assert np.array_equal(reader.quantised("a"), quantise(probs))


def test_the_haze_over_clean_images_takes_no_room(folder):
    rng = np.random.default_rng(0)
    with OofWriter(folder, "mask", 4) as writer:
        for number in range(3):
            writer.add(
                str(number), rng.uniform(0, 0.0137, (4, 64, 400)).astype(np.float32), 64, 400
            )
    assert (folder / "maps.bin").stat().st_size < 3 * 1000
    with OofReader(folder) as reader:
        assert not reader.mask("1").any()


def test_a_store_of_before_is_read_as_it_was_written(folder):
    maps_before = np.random.default_rng(0).integers(0, 256, (2, 5, 7), np.uint8)
    packed = zlib.compress(maps_before.tobytes())
    folder.mkdir(parents=True)
    (folder / "probs.bin").write_bytes(packed)
    header = "image_id,offset,length,height,width,h,w\n"
    (folder / "index.csv").write_text(f"{header}a,0,{len(packed)},5,7,5,7\n")
    with OofReader(folder) as reader:
        assert np.array_equal(reader.quantised("a"), maps_before)


def test_labels_come_back_exactly(folder):
    probs = np.array([0.1, 1 / 3, 0.9999999], np.float32)
    with OofWriter(folder, "label", 3) as writer:
        writer.add("a,b.jpg", probs, 1, 1)
    with OofReader(folder) as reader:
        assert reader.predicts == "label"
        assert np.array_equal(reader.label("a,b.jpg"), probs)
    assert (folder / "labels.csv").read_text().startswith("image_id,p0,p1,p2\n")


def test_half_a_store_never_appears(folder):
    writer = OofWriter(folder, "mask", 3)
    writer.add("a", maps(1)["i0.jpg"], 16, 24)
    assert not folder.exists()
    with pytest.raises(DataError), OofWriter(folder.with_name("oof2"), "mask", 3) as other:
        other.add("a", np.zeros(3, np.float32), 16, 24)
    assert not folder.with_name("oof2").exists()
    writer.close()
    assert sorted(path.name for path in folder.parent.iterdir()) == ["oof"]
    assert sorted(path.name for path in folder.iterdir()) == ["index.csv", "maps.bin"]


def test_a_finished_store_is_not_overwritten(folder):
    OofWriter(folder, "label", 3).close()
    with pytest.raises(LocalError, match="there already"):
        OofWriter(folder, "label", 3)


def test_wrong_shapes_and_repeats_are_refused(folder):
    writer = OofWriter(folder, "mask", 3)
    writer.add("a", np.zeros((3, 4, 4), np.float32), 4, 4)
    with pytest.raises(DataError, match="twice"):
        writer.add("a", np.zeros((3, 4, 4), np.float32), 4, 4)
    with pytest.raises(DataError, match=r"b: probabilities \(2, 4, 4\) for 3 classes"):
        writer.add("b", np.zeros((2, 4, 4), np.float32), 4, 4)


def test_what_is_missing_or_damaged_is_named(folder, tmp_path):
    with pytest.raises(DataError, match="no out-of-fold store"):
        OofReader(tmp_path / "none")
    with OofWriter(folder, "mask", 3) as writer:
        writer.add("a", maps(1)["i0.jpg"], 16, 24)
    (folder / "maps.bin").write_bytes(b"\0" * 500)
    with OofReader(folder) as reader:
        with pytest.raises(DataError, match="no prediction of z"):
            reader.mask("z")
        with pytest.raises(DataError, match="damaged at a"):
            reader.mask("a")


@pytest.mark.parametrize(("predicts", "shape"), [("mask", (3, 4, 4)), ("label", (3,))])
def test_nan_is_no_probability(folder, predicts, shape):
    probs = np.full(shape, 0.5, np.float32)
    probs[(2, *(0,) * (len(shape) - 1))] = np.nan
    with pytest.raises(DataError, match="a: the model predicts NaN"):
        OofWriter(folder, predicts, 3).add("a", probs, 4, 4)

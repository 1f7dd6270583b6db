import cv2
import numpy as np
import pytest

from kagflow.errors import DataError
from kagflow.infer.image import INPUTS, Grey, read_grey, resize, resize_probs
from kagflow.resolve import build


def test_reads_grey_of_grey_colour_and_alpha_alike(tmp_path):
    grey = np.arange(24 * 32, dtype=np.uint32).reshape(24, 32).astype(np.uint8)
    for channels in (1, 3, 4):
        stacked = np.dstack([grey] * min(channels, 3))
        if channels == 4:
            stacked = np.dstack([stacked, np.full_like(grey, 255)])
        path = tmp_path / f"ä {channels}.png"
        path.write_bytes(cv2.imencode(".png", stacked if channels > 1 else grey)[1].tobytes())
        read = read_grey(path)
        assert read.dtype == np.uint8
        assert np.abs(read.astype(int) - grey).max() <= 1


@pytest.mark.parametrize("content", [b"", b"not an image", b"\xff\xd8\xff\xe0"])
def test_what_is_no_image_is_a_data_error_with_its_name(tmp_path, content):
    path = tmp_path / "bad.jpg"
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"bad\.jpg"):
        read_grey(path)


def test_a_missing_file_is_a_data_error(tmp_path):
    with pytest.raises(DataError, match="No such file"):
        read_grey(tmp_path / "none.png")


def test_shrinking_averages_areas():
    image = np.zeros((4, 8), np.uint8)
    image[:, 1::2] = 200
    assert (resize(image, (2, 4)) == 100).all()
    assert resize(image, None) is image
    assert resize(image, (4, 8)) is image
    assert resize(image, (8, 16)).shape == (8, 16)


def test_grey_normalises_and_repeats():
    image = np.array([[0, 255]], np.uint8)
    out = Grey(mean=0.5, std=0.25, channels=3)(image, {})
    assert out.dtype == np.float32
    assert out.shape == (3, 1, 2)
    np.testing.assert_allclose(out, [[[-2, 2]]] * 3, atol=1e-6)
    assert build({"target": "grey", "kwargs": {"channels": 1}}, INPUTS)(image, {}).shape == (
        1,
        1,
        2,
    )


def test_probability_maps_are_resized_as_torch_does_it():
    import torch

    probs = np.random.default_rng(0).random((3, 6, 10), np.float32)
    strided = np.ascontiguousarray(probs.transpose(1, 2, 0)).transpose(2, 0, 1)
    wanted = torch.nn.functional.interpolate(
        torch.from_numpy(probs)[None], (12, 25), mode="bilinear", align_corners=False
    )[0].numpy()
    np.testing.assert_allclose(resize_probs(probs, (12, 25)), wanted, atol=1e-5)
    np.testing.assert_allclose(resize_probs(strided, (12, 25)), wanted, atol=1e-5)
    assert resize_probs(probs, (6, 10)) is probs

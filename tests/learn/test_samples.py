"""The data path: cache, crops, augmentation, targets."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from kagflow.errors import DataError, UsageError
from kagflow.infer.image import Affine, Grey, affine_of, read_grey
from kagflow.learn import augment
from kagflow.learn import cache as cache_module
from kagflow.learn.augment import AUGMENTS
from kagflow.learn.cache import Part, decode_mask, open_cache
from kagflow.learn.dataset import Samples, Steps, crop, to_channels
from kagflow.learn.sampler import Draw
from kagflow.resolve import build
from kagflow.task.labels import read_labels
from kagflow.task.rle import encode


@pytest.fixture
def cache(squares, spec, tmp_path):
    labels = read_labels(squares / "train.csv", spec)
    return lambda size=None: open_cache(
        squares, spec, size, part=Part(None, labels), folder=tmp_path / "c"
    )


def test_the_cache_holds_the_files_pixels_and_the_csvs_masks(cache, squares, spec):
    made, labels = cache(), read_labels(squares / "train.csv", spec)
    assert len(made.ids) == 24
    for row, name in enumerate(made.ids):
        assert np.array_equal(made.image(row), read_grey(squares / "train_images" / name))
        channels = to_channels(made.mask(row), 2)
        for index in range(2):
            assert encode(channels[index]) == labels.get(name, {}).get(index, "")


def test_the_cache_is_made_once_and_again_when_its_data_change(cache, squares, tmp_path):
    cache(), cache()
    assert len(list((tmp_path / "c").iterdir())) == 1
    cache((32, 32))
    assert len(list((tmp_path / "c").iterdir())) == 2
    (squares / "manifest.json").write_text("{}")
    cache()
    assert len(list((tmp_path / "c").iterdir())) == 3


def test_two_trainings_may_make_the_same_cache_at_once(cache, tmp_path, monkeypatch):
    first = cache()
    (made,) = (tmp_path / "c").iterdir()
    aside, write = tmp_path / "aside", cache_module._Build.write
    made.rename(aside)

    def slower(self, folder, files, progress):
        write(self, folder, files, progress)
        aside.rename(made)

    monkeypatch.setattr(cache_module._Build, "write", slower)
    assert cache().ids == first.ids
    assert list((tmp_path / "c").iterdir()) == [made]


def test_working_size(cache):
    made = cache((32, 48))
    assert made.image(1).shape == made.mask(1).shape == (32, 48)
    assert made.own_size(1) == (64, 64)
    whole = cache()
    share = [(each.mask(1) == 1).mean() for each in (made, whole)]
    assert share[0] == pytest.approx(share[1], rel=0.15)


def test_an_unreadable_image_is_named(cache, squares):
    (squares / "train_images" / "003.png").write_bytes(b"no image")
    with pytest.raises(DataError, match=r"003\.png"):
        cache()


def test_overlapping_classes_become_channels():
    one = np.zeros((6, 8), np.uint8)
    one[1:4, 1:4] = 1
    two = np.roll(one, 3, axis=1)
    both = {0: encode(one), 2: encode(np.maximum(one, two))}
    assert decode_mask({0: encode(one), 1: encode(two)}, (6, 8), 3, None).shape == (6, 8)
    found = decode_mask(both, (6, 8), 3, None)
    assert found.shape == (6, 8, 3)
    assert np.array_equal(to_channels(found, 3)[2], np.maximum(one, two))


def test_a_crop_keeps_image_and_mask_together():
    image = np.arange(40 * 60, dtype=np.uint32).reshape(40, 60).astype(np.uint8)
    rng = np.random.default_rng(0)
    for _ in range(20):
        piece, mask = crop(image, image, (16, 24), rng=rng, centred=False)
        assert piece.shape == (16, 24)
        assert np.array_equal(piece, mask)


def test_a_centred_crop_sees_the_defect_whichever_class():
    mask = np.zeros((200, 300), np.uint8)
    mask[5, 290], mask[190, 3:5] = 1, 2
    rng, seen = np.random.default_rng(0), {1: 0, 2: 0}
    for _ in range(200):
        _, piece = crop(mask, mask, (32, 32), rng=rng, centred=True)
        assert piece.any()
        seen[int(piece.max())] += 1
    assert min(seen.values()) > 60
    hits = [crop(mask, mask, (32, 32), rng=rng, centred=False)[1].any() for _ in range(200)]
    assert sum(hits) < 40


def test_small_images_grow_to_the_crop():
    image, mask = np.full((10, 50), 7, np.uint8), np.zeros((10, 50, 2), np.uint8)
    piece, grown = crop(image, mask, (32, 32), rng=np.random.default_rng(0), centred=True)
    assert piece.shape == (32, 32)
    assert grown.shape == (32, 32, 2)
    assert (piece == 7).all()


@pytest.mark.parametrize("name", sorted(AUGMENTS))
def test_augmentation_depends_on_the_seed_alone(name):
    rng = np.random.default_rng(0)
    image = rng.integers(0, 255, (40, 56), np.uint8)
    mask = (image > 200).astype(np.uint8)
    compose = build({"target": name}, AUGMENTS)
    first = [augment.apply(compose, image, mask, seed=seed)[0] for seed in range(12)]
    again = [
        augment.apply(build({"target": name}, AUGMENTS), image, mask, seed=seed)[0]
        for seed in reversed(range(12))
    ]
    assert all(np.array_equal(a, b) for a, b in zip(first, reversed(again), strict=True))
    different = {each.tobytes() for each in first}
    assert len(different) == 1 if name == "none" else len(different) > 2


def test_flips_are_independent_of_each_other_and_take_the_mask_along():
    image = np.arange(12, dtype=np.uint8).reshape(3, 4)
    compose = build({"target": "flips"}, AUGMENTS)
    seen = set()
    for seed in range(60):
        flipped, mask = augment.apply(compose, image, image, seed=seed)
        assert np.array_equal(flipped, mask)
        seen.add(int(flipped[0, 0]))
    assert seen == {0, 3, 8, 11}


@pytest.fixture
def samples(cache):
    def make(**changes):
        made = cache()
        labels = np.array([to_channels(made.mask(r), 2).any(axis=(1, 2)) for r in range(24)])
        steps = {"crop": None, "compose": build({"target": "flips"}, AUGMENTS),
                 "make_input": Grey(), "masks": True} | changes  # fmt: skip
        return Samples(made, np.arange(24), labels, Steps(**steps)), labels

    return make


def test_a_sample_has_input_mask_and_label(samples):
    data, labels = samples()
    for row in (0, 1, 2):
        sample = data[Draw(row, 5, centred=False)]
        assert sample["image"].shape == (1, 64, 64)
        assert sample["image"].dtype == torch.float32
        assert sample["mask"].shape == (2, 64, 64)
        assert sample["label"].tolist() == labels[row].tolist()
        assert sample["mask"].amax(dim=(1, 2)).tolist() == labels[row].tolist()


def test_the_label_of_a_crop_is_what_is_seen_in_it(samples):
    data, _ = samples(crop=(16, 16), masks=False)
    with_mask, _ = samples(crop=(16, 16))
    seen = set()
    for seed in range(30):
        sample, whole = data[Draw(1, seed, centred=False)], with_mask[Draw(1, seed, centred=False)]
        assert "mask" not in sample
        assert sample["label"].tolist() == whole["mask"].amax(dim=(1, 2)).tolist()
        seen.add(tuple(sample["label"].tolist()))
    assert len(seen) > 1


class Odd:
    """Compute what no scale and shift can."""

    def __call__(self, image, metadata):
        return np.sqrt(image.astype(np.float32))[None]


@pytest.mark.parametrize("make_input", [Grey(), Grey(0.5, 0.3, channels=3), Odd()])
@pytest.mark.parametrize("crop", [None, (24, 40)])
@pytest.mark.parametrize("overlap", [False, True])
def test_a_batch_becomes_the_single_samples_bit_by_bit(samples, make_input, crop, overlap):
    data, _ = samples(crop=crop, make_input=make_input)
    if overlap:
        stacked = np.zeros((64, 64, 2), np.uint8)
        stacked[10:50, 10:50, 0] = stacked[30:60, 30:60, 1] = 1
        mask = data.cache.mask
        object.__setattr__(data.cache, "mask", lambda row: stacked if row == 2 else mask(row))
    drawn = [Draw(row, 7 * row, centred=bool(row % 2)) for row in range(6)]
    batch = data.batch(drawn)
    assert ("map" in batch) == (not overlap)
    assert ("pixels" in batch) == isinstance(make_input, Grey)
    assert all(batch[key].dtype == torch.uint8 for key in batch if key in ("pixels", "map"))
    whole = data.finish(batch)
    singles = [data[draw] for draw in drawn]
    assert whole.keys() == singles[0].keys()
    for key in whole:
        wanted = torch.stack([one[key] for one in singles])
        assert torch.equal(whole[key].float(), wanted.float()), key
    assert whole["mask"].any()


def test_images_of_unequal_sizes_make_no_batch(samples):
    data, _ = samples()
    for name in ("image", "mask"):
        whole = getattr(data.cache, name)
        object.__setattr__(data.cache, name, lambda row, whole=whole: whole(row)[: 40 + row % 2])
    with pytest.raises(UsageError, match=r"\(40, 64\), \(41, 64\)"):
        data.batch([Draw(0, 1, centred=False), Draw(1, 1, centred=False)])


def test_an_input_that_is_not_what_it_declares_is_refused():
    class Wrong(Odd):
        affine = Affine(0.1, 0.2)

    assert affine_of(Odd()) is None
    assert affine_of(Grey(0.4, 0.2, channels=2)) == Grey(0.4, 0.2, channels=2).affine
    with pytest.raises(UsageError, match="input Wrong computes something else"):
        affine_of(Wrong())

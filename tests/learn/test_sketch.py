from __future__ import annotations

import cv2
import numpy as np
import pytest

from kagflow.errors import DataError
from kagflow.learn import pool as pools
from kagflow.learn.blend import Blend
from kagflow.learn.counts import COMPONENT_THRESHOLDS, THRESHOLDS
from kagflow.learn.evidence import count_blends
from kagflow.learn.oof import OofReader, OofWriter
from kagflow.learn.sketch import SKETCHED, make_sketch
from kagflow.task import rle
from kagflow.task.spec import TaskSpec

SPEC = TaskSpec("s", "segmentation", ("1", "2"))
SHAPE = (40, 64)


def maps(rng, truth, sure):
    """One member's map of a class: soft blobs near the truth, or an invented one."""
    base = truth.astype(np.float32) * sure
    if rng.random() < 0.3:
        base[5:15, 40:52] = np.maximum(base[5:15, 40:52], rng.uniform(0.3, 0.9))
    return np.clip(cv2.GaussianBlur(base, (0, 0), 1.5) + rng.random(SHAPE) * 0.03, 0, 1)


@pytest.fixture(scope="module")
def pool(tmp_path_factory):
    """Three members, one of half the size, on 30 images; class 2 is often absent."""
    folder, rng = tmp_path_factory.mktemp("pool"), np.random.default_rng(0)
    truth, masks = {}, {}
    for number in range(30):
        found = {}
        for index in range(2):
            mask = np.zeros(SHAPE, np.uint8)
            if rng.random() < (0.8, 0.3)[index]:
                mask[8:24, 6:30] = 1
                found[index] = rle.encode(mask)
            masks[number, index] = mask
        truth[f"{number:02}.png"] = found
    stores = []
    for member, size in enumerate((SHAPE, SHAPE, (20, 32))):
        with OofWriter(folder / str(member), "mask", 2) as store:
            for number, name in enumerate(truth):
                planes = [maps(rng, masks[number, c], 0.5 + 0.15 * member) for c in range(2)]
                planes = [cv2.resize(one, size[::-1]) for one in planes]
                store.add(name, np.array(planes, np.float32), *SHAPE)
        reader = OofReader(folder / str(member))
        stores.append(dict.fromkeys(reader.image_ids, reader))
    clusters = {name: number for number, name in enumerate(truth)}
    return pools.open_pool(stores, truth, SPEC, clusters)


BLENDS = [Blend((1, 0, 0)), Blend((1, 1, 1)), Blend((3, 0, 2)), Blend((1, 2, 1), logits=True)]


def test_a_blend_counts_what_thresholds_leave_of_the_mean_map(pool):
    for blend, counted in zip(BLENDS, count_blends(pool, BLENDS), strict=True):
        for number in (0, 7, 19):
            name = pool.names[number]
            probs = blend.mean([store[name].mask(name) for store in pool.masks])
            for index in range(2):
                true = rle.decode(pool.truth[name].get(index), *SHAPE) > 0
                for at, threshold in enumerate(THRESHOLDS):
                    mask = probs[index] >= threshold
                    assert counted.predicted[number, index, at] == mask.sum()
                    assert counted.intersection[number, index, at] == (mask & true).sum()


def test_components_belong_to_the_active_images(pool):
    counted = count_blends(pool, BLENDS[:2])[1]
    for index in range(2):
        pieces, rows = counted.components[index], counted.active(index)
        assert len(rows) == len(pieces.predicted) > 5
        every = np.isin(THRESHOLDS, COMPONENT_THRESHOLDS)
        totals = counted.predicted[rows][:, index][:, every]
        assert np.array_equal(pieces.predicted[..., 0], totals)
        assert (np.diff(pieces.predicted, axis=-1) <= 0).all()
        assert (pieces.intersection <= pieces.predicted).all()


def test_a_sketch_of_every_pixel_counts_them_all(pool):
    sketch = make_sketch(pool)
    every = np.isin(THRESHOLDS, SKETCHED)
    # The third member is resized, and rounded to 1/255 once more.
    for blend, exact in zip(BLENDS, count_blends(pool, BLENDS), strict=True):
        counted = sketch.evidence(blend)
        slack = 0 if not blend.logits and not blend.counts[2] else 30
        off = np.abs(counted.predicted - exact.predicted[..., every])
        assert off.max() <= slack
        assert off.mean() <= slack / 20
        assert np.abs(counted.intersection - exact.intersection[..., every]).max() <= slack


def test_a_small_sketch_stays_small_and_near(pool):
    small = make_sketch(pool, budget=1)
    whole = make_sketch(pool)
    assert all(one.values.shape[1] <= 256 * 30 for one in small.samples)
    assert small.samples[0].values.size < whole.samples[0].values.size
    blend = Blend((1, 1, 1))
    near, exact = small.evidence(blend), whole.evidence(blend)
    at = len(SKETCHED) // 2
    wanted = exact.predicted[:, 0, at]
    assert np.abs(near.predicted[:, 0, at] - wanted).mean() < 0.05 * wanted.mean()
    assert np.array_equal(near.true, exact.true)


def test_classes_that_no_member_could_predict_are_not_read(pool):
    number = next(n for n in range(30) if len(pool.active(n)) < 2)
    name = pool.names[number]
    (left,) = {0, 1} - {one.number for one in pool.active(number)}
    assert max(store[name].mask(name)[left].max() for store in pool.masks) < THRESHOLDS[0]


def test_a_pool_needs_probabilities(tmp_path):
    with OofWriter(tmp_path / "gate", "label", 2) as store:
        store.add("a", np.array([0.5, 0.25], np.float32), 4, 4)
    text = (tmp_path / "gate" / "labels.csv").read_text()
    (tmp_path / "gate" / "labels.csv").write_text(text.replace("0.25", "nan"))
    gate = {"a": OofReader(tmp_path / "gate")}
    with pytest.raises(DataError, match=r"gate: a has probabilities \[0.5, nan\]"):
        pools.open_pool([gate], {}, SPEC, {"a": 0})


def test_components_are_left_out_where_nobody_asks(pool):
    (whole,), (quick,) = (
        count_blends(pool, BLENDS[:1]),
        count_blends(pool, BLENDS[:1], pieces=False),
    )
    assert quick.components is None
    assert np.array_equal(quick.predicted, whole.predicted)
    assert np.array_equal(quick.intersection, whole.intersection)

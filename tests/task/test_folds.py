from __future__ import annotations

import itertools
import time

import cv2
import numpy as np
import pytest

from kagflow.errors import DataError, UsageError
from kagflow.task import folds
from kagflow.task.index import ImageRow, perceptual_hash
from kagflow.task.spec import TaskSpec

SPEC = TaskSpec("s", "segmentation", ("1", "2", "3", "4"))
SHARES = (0.07, 0.02, 0.41, 0.06)


def flip(rng, value, bits):
    for bit in rng.choice(64, bits, replace=False):
        value ^= 1 << int(bit)
    return value


def dataset(images, seed=0, shape=(256, 1600)):
    """Make hashes of which a tenth are near-duplicates, and labels that the copies share."""
    rng = np.random.default_rng(seed)
    rows, labels, group = [], {}, []
    while len(rows) < images:
        base = int(rng.integers(0, 2**63))
        found = {c: "1 1" for c, share in enumerate(SHARES) if rng.random() < share}
        for _ in range(int(rng.integers(2, 6)) if rng.random() < 0.04 else 1):
            name = f"{rng.integers(0, 2**40):010x}.jpg"
            rows.append(ImageRow(name, *shape, flip(rng, base, int(rng.integers(0, 3)))))
            labels[name] = found
            group.append(base)
    return rows, labels, group


def table(result, labels, k):
    counts = np.zeros((k, len(SPEC.classes) + 1), int)
    for name, (_, fold) in result.items():
        counts[fold, [*labels.get(name, {}), -1]] += 1
    return counts


@pytest.mark.parametrize("k", [2, 5])
def test_no_duplicate_leaks_and_classes_are_even(k):
    rows, labels, group = dataset(3000)
    result = folds.make_folds(rows, labels, SPEC, k=k, seed=0)
    seen = {}
    for row, base in zip(rows, group, strict=True):
        seen.setdefault(base, set()).add(result[row.image_id])
    assert sum(len(found) > 1 for found in seen.values()) == 0
    assert any(sum(b == base for b in group) > 2 for base in set(group))
    counts = table(result, labels, k)
    even = counts.sum(axis=0) / k
    assert np.abs(counts - even).max() <= max(2, 0.015 * even.max())
    assert np.abs(counts / even - 1)[:, 2:].max() < 0.03


def test_full_size_is_quick():
    rows, labels, _ = dataset(12_568)
    start = time.process_time()
    result = folds.make_folds(rows, labels, SPEC, k=5, seed=0)
    assert time.process_time() - start < 10
    assert len(result) == len(rows)
    counts = table(result, labels, 5)
    assert np.abs(counts / (counts.sum(axis=0) / 5) - 1).max() < 0.02


def test_the_seed_decides_and_the_order_of_rows_does_not():
    rows, labels, _ = dataset(400)
    first = folds.make_folds(rows, labels, SPEC, k=4, seed=1)
    shuffled = [rows[i] for i in np.random.default_rng(9).permutation(len(rows))]
    assert folds.make_folds(shuffled, labels, SPEC, k=4, seed=1) == first
    assert folds.make_folds(rows, labels, SPEC, k=4, seed=2) != first


def clusters_by_brute_force(rows):
    label = list(range(len(rows)))
    for a, b in itertools.combinations(range(len(rows)), 2):
        near = (rows[a].phash ^ rows[b].phash).bit_count() <= 4
        if near and (rows[a].height, rows[a].width) == (rows[b].height, rows[b].width):
            old, new = sorted((label[a], label[b]))[::-1]
            label = [new if one == old else one for one in label]
    return label


def test_clusters_agree_with_brute_force():
    rng = np.random.default_rng(3)
    bases = [int(rng.integers(0, 2**63)) for _ in range(30)]
    rows = []
    for n in range(300):
        value = flip(rng, bases[n % 30], int(rng.integers(0, 6)))
        rows.append(ImageRow(f"{n:03}", 8 + n // 60 % 2, 9 + n // 30 % 2, value))
    mine = folds.make_clusters(rows, limit=1000)
    theirs = clusters_by_brute_force(rows)
    assert len(set(mine)) == len(set(theirs)) == len(set(zip(mine, theirs, strict=True)))
    assert 30 < len(set(mine)) < 300


def smooth_frames(count):
    """Make frames of nearly no texture under one lamp."""
    rng = np.random.default_rng(0)
    lamp = 80 + 60 * np.sin(np.pi * np.arange(200) / 200)[None] * np.ones((64, 1))
    for _ in range(count):
        frame = lamp + cv2.GaussianBlur(rng.normal(size=(64, 200)), (0, 0), 4) * 8
        yield np.clip(frame, 0, 255).astype(np.uint8)


@pytest.mark.parametrize("kind", ["lamp", "flat", "black"])
def test_images_of_little_texture_do_not_become_one_group(kind):
    rng = np.random.default_rng(0)
    frames = {
        "lamp": lambda: list(smooth_frames(200)),
        "flat": lambda: [np.full((64, 200), 20 + n, np.uint8) for n in range(200)],
        "black": lambda: [rng.integers(0, 3, (64, 200), np.uint8) for _ in range(200)],
    }[kind]()
    rows = [ImageRow(f"{n:03}", 64, 200, perceptual_hash(f)) for n, f in enumerate(frames)]
    assert np.bincount(folds.make_clusters(rows, limit=1000)).max() <= 5
    assert set(
        np.bincount([f for _, f in folds.make_folds(rows, {}, SPEC, k=5, seed=0).values()])
    ) == {40}


def test_a_chain_that_swallows_the_data_is_taken_apart_but_equal_hashes_stay():
    rows = [ImageRow(f"{n:03}", 8, 8, (1 << (n // 2 % 60)) - 1) for n in range(240)]
    result = folds.make_folds(rows, {}, SPEC, k=4, seed=0)
    by_hash = {}
    for row in rows:
        by_hash.setdefault(row.phash, set()).add(result[row.image_id])
    assert all(len(found) == 1 for found in by_hash.values())
    assert np.bincount([fold for _, fold in result.values()]).tolist() == [60] * 4


def test_csv_brings_folds_back(tmp_path):
    rows, labels, _ = dataset(50)
    result = folds.make_folds(rows, labels, SPEC, k=2, seed=0)
    folds.write_folds(tmp_path / "folds.csv", result)
    assert folds.read_folds(tmp_path / "folds.csv") == result
    assert (tmp_path / "folds.csv").read_text().startswith("image_id,cluster,fold\n")


@pytest.mark.parametrize("k", [0, 1, 9])
def test_a_number_of_folds_that_does_not_fit_is_refused(k):
    rows = [ImageRow(str(n), 8, 8, n * 0x1111111111111) for n in range(5)]
    with pytest.raises(UsageError, match=f"{k} folds"):
        folds.make_folds(rows, {}, SPEC, k=k, seed=0)


def test_a_label_without_image_is_named():
    with pytest.raises(DataError, match=r"gone\.jpg"):
        folds.make_folds([ImageRow("a", 8, 8, 0)], {"gone.jpg": {}}, SPEC, k=2, seed=0)

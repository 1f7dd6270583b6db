from __future__ import annotations

import itertools

import cv2
import numpy as np
import pytest

from kagflow.errors import DataError
from kagflow.infer.postprocess import ClassRule, apply
from kagflow.learn import evidence, search
from kagflow.learn.oof import OofReader, OofWriter
from kagflow.task import metric, rle
from kagflow.task.score import score_rows
from kagflow.task.spec import TaskSpec

SPEC = TaskSpec("s", "segmentation", ("1", "2", "3"))
SHAPE = (24, 40)


def blob(rng, size):
    mask = np.zeros(SHAPE, bool)
    top, left = (int(rng.integers(0, side - size)) for side in SHAPE)
    mask[top : top + size, left : left + size] = True
    return mask


def world(tmp_path, images, seed=0):
    """Make truth and predictions of three kinds of class, with specks on clean images.

    Class 0 is found well but has small false specks, class 1 is guessed at random, class 2 is
    found with false blobs of full size, which only the gate can tell.
    """
    rng = np.random.default_rng(seed)
    truth, gates = {}, {}
    masks = OofWriter(tmp_path / "masks", "mask", 3)
    labels = OofWriter(tmp_path / "labels", "label", 3)
    for number in range(images):
        name, found = f"{number:04}.jpg", {}
        probs = np.zeros((3, *SHAPE), np.float32)
        for index, share in enumerate((0.5, 0.1, 0.4)):
            true = blob(rng, int(rng.integers(8, 12))) if rng.random() < share else None
            if true is not None:
                found[index] = rle.encode(true)
            guess = np.zeros(SHAPE, np.float32)
            if index != 1 and true is not None:
                guess[true] = 0.75
            if index == 0 and rng.random() < 0.7:
                guess[blob(rng, 3)] = 0.8
            if (index == 1 and rng.random() < 0.3) or (index == 2 and rng.random() < 0.5):
                guess[blob(rng, 10)] = 0.75
            probs[index] = cv2.GaussianBlur(guess, (0, 0), 0.7) + rng.random(SHAPE) * 0.05
        truth[name] = found
        shown = np.array([index in found and index != 1 for index in range(3)])
        gates[name] = np.clip(shown * 0.6 + rng.random(3) * 0.4, 0, 1).astype(np.float32)
        masks.add(name, np.clip(probs, 0, 1), *SHAPE)
        labels.add(name, gates[name], *SHAPE)
    masks.close()
    labels.close()
    clusters = {name: number // 2 for number, name in enumerate(truth)}
    return truth, clusters


def stores(tmp_path, *names):
    found = []
    for name in names:
        reader = OofReader(tmp_path / name)
        found.append(dict.fromkeys(reader.image_ids, reader))
    return found


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    folder = tmp_path_factory.mktemp("world")
    truth, clusters = world(folder, 240)
    both = stores(folder, "masks", "labels")
    return truth, clusters, both, evidence.gather(both, truth, SPEC, clusters=clusters)


def score_by_hand(truth, both, rules, names=None):
    rows = {}
    for name in names or truth:
        gate = both[1][name].label(name) if len(both) > 1 else None
        masks = apply(both[0][name].mask(name), gate, rules)
        rows[name] = {c: rle.encode(mask) for c, mask in enumerate(masks) if mask.any()}
    return score_rows(rows, truth, SPEC, image_ids=names)


def test_counts_are_those_of_thresholded_masks(made):
    truth, _, both, counted = made
    assert counted.pixels == SHAPE[0] * SHAPE[1]
    for row in range(0, 240, 40):
        name = counted.image_ids[row]
        probs = both[0][name].mask(name)
        for index, at in itertools.product(range(3), range(len(evidence.THRESHOLDS))):
            mask = probs[index] >= evidence.THRESHOLDS[at]
            true = rle.decode(truth[name].get(index), *SHAPE) > 0
            assert counted.predicted[row, index, at] == mask.sum()
            assert counted.intersection[row, index, at] == (mask & true).sum()
            assert counted.true[row, index] == true.sum()
        assert np.array_equal(counted.gate[row], both[1][name].label(name))


def test_gains_agree_with_brute_force(made):
    _, _, _, counted = made
    areas = search.area_grid(counted.pixels)
    parts = search.make_parts(counted.clusters, counted.true > 0)
    rng = np.random.default_rng(0)
    for index in range(3):
        gains = search.class_gains(counted, metric.dice, index, parts=parts, areas=areas)
        assert gains.shape == (5, 31, len(areas), len(search.GATES))
        for _ in range(40):
            part, at, area, gate = (int(rng.integers(0, size)) for size in gains.shape)
            by_hand = 0.0
            for row in np.flatnonzero(parts == part):
                predicted = counted.predicted[row, index, at]
                both, true = counted.intersection[row, index, at], counted.true[row, index]
                if predicted < areas[area] or counted.gate[row, index] < search.GATES[gate]:
                    predicted = both = 0
                score = 2 * both / (predicted + true) if predicted + true else 1
                by_hand += score - (true == 0)
            assert gains[part, at, area, gate] == pytest.approx(by_hand, abs=1e-9)


def test_rules_score_what_is_promised_when_applied_to_the_maps(made):
    truth, _, both, counted = made
    found = search.search(counted, metric.dice)
    assert score_by_hand(truth, both, found.rules) == found.naive
    assert score_by_hand(truth, both, [ClassRule()] * 3) == found.default


def test_each_class_gets_the_rule_that_fits_it(made):
    truth, _, both, counted = made
    specks, guessed, gated = search.search(counted, metric.dice).rules
    assert 9 < specks.min_area <= 64
    assert not specks.empty
    assert guessed.empty
    assert 0.3 < gated.gate <= 0.65
    alone = evidence.gather(both[:1], truth, SPEC, clusters=made[1])
    without = search.search(alone, metric.dice)
    assert [rule.gate for rule in without.rules] == [0, 0, 0]
    found = search.search(counted, metric.dice)
    assert found.crossfitted.value > without.crossfitted.value + 0.02
    assert found.crossfitted.value > found.default.value + 0.05
    assert found.naive.value >= found.crossfitted.value > found.naive.value - 0.02


def test_a_gate_that_knows_nothing_is_not_used(made):
    counted = made[3]
    rng = np.random.default_rng(5)
    noise = evidence.Evidence(**{**vars(counted), "gate": rng.random((240, 3)).astype(np.float32)})
    assert [rule.gate for rule in search.search(noise, metric.dice).rules] == [0, 0, 0]


def random_counts(rng, images, *, skill):
    """Make evidence in which a class is true in a tenth of the images, found with `skill`."""
    shown = rng.random((images, 1)) < 0.1
    true = np.where(shown, rng.integers(50, 200, (images, 1)), 0)
    falling = np.linspace(1.5, 0.2, len(evidence.THRESHOLDS))
    seen = np.where(rng.random((images, 1)) < skill, shown, rng.random((images, 1)) < 0.1)
    predicted = (seen * rng.integers(50, 200, (images, 1)))[..., None] * falling
    both = np.minimum(predicted, true[..., None]) * rng.random((images, 1, 1))
    return evidence.Evidence(
        tuple(map(str, range(images))), np.arange(images), true.astype(np.int64),
        predicted.astype(np.int64), both.astype(np.int64), None, 960,
    )  # fmt: skip


def gain_of(rule, counted):
    """Apply a rule to counts by hand; return its score above that of predicting nothing."""
    at = int(np.flatnonzero(rule.threshold == evidence.THRESHOLDS)[0])
    keep = (counted.predicted[..., at] >= rule.min_area) & (not rule.empty)
    nothing = 0 * counted.true
    predicted, both = counted.predicted[..., at] * keep, counted.intersection[..., at] * keep
    score = metric.dice(both, predicted, counted.true).mean()
    return score - metric.dice(nothing, nothing, counted.true).mean()


# At .6 a class is worth about nothing, where taking the better of two noisy figures flatters most.
@pytest.mark.parametrize(("skill", "optimism"), [(0, 0.001), (0.6, 0.008), (0.9, 0.003)])
def test_cross_fitted_score_is_never_below_the_floor_nor_flattering(skill, optimism):
    rng = np.random.default_rng(1)
    fresh = random_counts(rng, 20_000, skill=skill)
    gaps, gains = [], []
    for _ in range(60):
        found = search.search(random_counts(rng, 150, skill=skill), metric.dice)
        promised = found.crossfitted.value - found.crossfitted.floor
        assert promised >= 0
        assert found.crossfitted.value >= found.default.value - 1e-12
        gains.append(gain_of(found.rules[0], fresh))
        gaps.append(promised - gains[-1])
    assert abs(np.mean(gaps)) < optimism
    assert np.mean(gains) > -0.005
    assert np.mean(gains) > 0.02 or skill < 0.9


def test_pick_prefers_the_middle_of_a_plateau_to_a_peak():
    table = np.zeros((9, 7, 1))
    table[0, 6] = 5.0
    table[3:8, 1:6] = 3.0
    assert search.pick(table) == (5, 3, 0)
    assert search.pick(np.zeros((9, 7, 3))) == (4, 3, 1)


def test_choose_takes_the_simplest_that_is_as_good():
    gains = np.full((5, 31, 4, 3), -1.0)
    assert search.choose(gains) is None
    gains[:, *search.DEFAULT] = 1.0
    assert search.choose(gains) == search.DEFAULT
    gains[:] = 1.0
    assert search.choose(gains) == search.DEFAULT
    gains[:, 20:25, 1:, :] = 2.0
    cell = search.choose(gains)
    assert (cell[0], cell[2]) == (22, 0)
    gains[:, 20:25, 1:, 1:] = 3.0
    assert search.choose(gains)[2] > 0


def test_one_lucky_part_is_not_believed():
    gains = np.full((5, 31, 4, 1), -0.1)
    for part in range(5):
        gains[part, 6 * part : 6 * part + 3] = 0.8
    assert gains.sum(axis=0).max() > 0.3
    assert search.choose(gains) is None


def test_parts_keep_clusters_whole_and_share_classes():
    rng = np.random.default_rng(0)
    clusters = rng.integers(0, 300, 500)
    present = (rng.random((300, 2)) < 0.2)[clusters]
    parts = search.make_parts(clusters, present)
    assert sorted(set(parts)) == [0, 1, 2, 3, 4]
    for cluster in set(clusters.tolist()):
        assert len(set(parts[clusters == cluster])) == 1
    groups = np.unique(np.column_stack([clusters, parts, present]), axis=0)
    counts = [groups[groups[:, 1] == part, 2:].sum(axis=0) for part in range(5)]
    assert np.ptp(counts, axis=0).max() <= 3
    assert search.make_parts(np.array([7, 7, 9]), np.zeros((3, 1), bool)).max() == 1


def test_a_single_group_leaves_the_default_or_nothing():
    counted = random_counts(np.random.default_rng(0), 40, skill=1)
    single = evidence.Evidence(**{**vars(counted), "clusters": np.zeros(40, np.int64)})
    found = search.search(single, metric.dice)
    assert found.rules[0] in (ClassRule(), ClassRule(empty=True))


def test_a_metric_of_whole_images_can_be_tuned_too():
    counted = random_counts(np.random.default_rng(0), 100, skill=0.9)
    per_image = search.search(counted, lambda i, p, t: metric.dice(i, p, t).mean(axis=1))
    assert per_image == search.search(counted, metric.dice)


def test_members_are_averaged_where_all_of_them_predict(tmp_path):
    shapes = {"a": (6, 10), "b": (6, 10), "c": (12, 10)}
    maps = {}
    rng = np.random.default_rng(0)
    for member, names, size in (("one", "abc", (6, 10)), ("two", "bc", (3, 5))):
        with OofWriter(tmp_path / member, "mask", 3) as store:
            for name in names:
                store.add(name, rng.random((3, *size)).astype(np.float32), *shapes[name])
        maps[member] = OofReader(tmp_path / member)
    both = stores(tmp_path, "one", "two")
    truth = {"b": {0: "1 30"}, "c": {2: "5 4"}}
    counted = evidence.gather(both, truth, SPEC, clusters={"a": 0, "b": 0, "c": 1, "d": 2})
    assert counted.image_ids == ("b", "c")
    assert counted.true.tolist() == [[30, 0, 0], [0, 0, 4]]
    mean = (maps["one"].mask("c") + maps["two"].mask("c")) / 2
    assert mean.shape == (3, 12, 10)
    at = search.DEFAULT[0]
    assert counted.predicted[1, :, at].tolist() == (mean >= 0.5).sum(axis=(1, 2)).tolist()
    with pytest.raises(DataError, match="no image that all members"):
        evidence.gather(both, truth, SPEC, clusters={"a": 0})


def test_big_images_are_counted_exactly(monkeypatch):
    rng = np.random.default_rng(0)
    probs = rng.random((2, 50, 60)).astype(np.float32)
    truth = {1: rle.encode(rng.random((50, 60)) < 0.3)}
    usual = evidence.count_image(probs, truth)
    monkeypatch.setattr(evidence, "_EXACT", 0)
    assert np.array_equal(evidence.count_image(probs, truth), usual)
    edges = np.array([[[0, 0.5, 128 / 256, 127.99 / 256, 1.0]]], np.float32)
    assert evidence.count_image(edges, {})[0, 0, search.DEFAULT[0]] == 3

from __future__ import annotations

import itertools
from dataclasses import replace

import cv2
import numpy as np
import pytest

from kagflow.errors import DataError
from kagflow.infer.postprocess import ClassRule, apply
from kagflow.learn import evidence, grids, search
from kagflow.learn.counts import COMPONENT_THRESHOLDS
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
        alone = evidence.count_image(probs, truth[name])
        assert np.array_equal(alone[0], counted.predicted[row])
        assert np.array_equal(alone[1], counted.intersection[row])


def random_rule(rng, counted):
    areas = [int(area) for area in counted.areas]
    kind = rng.integers(0, 5)
    threshold = float(rng.choice(COMPONENT_THRESHOLDS))
    gate = float(rng.choice(grids.GATES)).__round__(4)
    if kind == 0:
        return ClassRule(threshold, min_component=int(rng.choice(areas[1:])), gate=gate)
    if kind == 1:
        higher = [float(one) for one in evidence.THRESHOLDS if one > threshold]
        return ClassRule(threshold, int(rng.choice(areas)), seed=float(rng.choice([0, *higher])))
    if kind == 2:
        return ClassRule(threshold, int(rng.choice(areas)), soft=float(rng.choice(grids.SOFT)))
    return ClassRule(threshold, int(rng.choice(areas)), gate=gate, empty=bool(kind == 4))


def test_every_rule_counts_what_it_leaves_of_the_maps(made):
    truth, _, both, counted = made
    rng = np.random.default_rng(3)
    for _ in range(12):
        rules = [random_rule(rng, counted) for _ in range(3)]
        rows = range(0, 240, 7)
        names = [counted.image_ids[row] for row in rows]
        by_hand = score_by_hand(truth, both, rules, names)
        some = search.count_rules(counted, rules)[:, list(rows)]
        assert search.score_counts(metric.dice, *some) == by_hand, rules


def test_every_cell_of_every_grid_gains_what_its_rule_does(made):
    counted = made[3]
    parts = search.make_parts(counted.clusters, counted.true > 0)
    empty = search.count_rules(counted, [search.EMPTY] * 3)
    rng = np.random.default_rng(0)
    kinds = set()
    for index, found in enumerate(search.all_grids(counted, metric.dice, parts)):
        nothing = metric.dice(*empty)[:, index]
        for grid in found:
            kinds.add(grid.kind)
            assert len(grid.gains) == 10
            for _ in range(25):
                part, *cell = (int(rng.integers(0, size)) for size in grid.gains.shape)
                rules = [search.EMPTY] * 3
                rules[index] = grid.rule(tuple(cell))
                scores = metric.dice(*search.count_rules(counted, rules))[:, index]
                wanted = (scores - nothing)[parts == part].sum()
                assert grid.gains[(part, *cell)] == pytest.approx(wanted, abs=1e-9), grid.kind
    assert kinds == {
        "default", "total area", "components", "triplet", "total area, calibrated gate",
        "components, calibrated gate", "total area, gate", "components, gate", "soft gate",
    }  # fmt: skip


def test_a_calibrated_gate_stands_where_keeping_is_worth_more_than_dropping(made):
    counted = made[3]
    parts = search.make_parts(counted.clusters, counted.true > 0)
    known = search.reliability(counted, 2, parts)
    (grid,) = [
        one
        for one in grids.make_grids(counted, metric.dice, 2, parts, known)
        if one.kind == "total area, calibrated gate"
    ]
    rule = grid.rule(grid.pick(frozenset()))
    # Class 2 is drawn well, so a mask is kept from p = 1 / (1 + q) on, a little above a half.
    curve = known.curve()
    at = int(np.flatnonzero(np.float32(rule.gate) == grids.GATES)[0])
    around = [float(curve(np.array([grids.GATES[at + step]]))[0]) for step in (-1, 1)]
    assert around[0] < 0.53 < around[1]


def test_rules_score_what_is_promised_when_applied_to_the_maps(made):
    truth, _, both, counted = made
    found = search.search(counted, metric.dice)
    assert score_by_hand(truth, both, found.rules) == found.naive
    assert score_by_hand(truth, both, [ClassRule()] * 3) == found.default


def test_each_class_gets_the_rule_that_fits_it(made):
    truth, _, both, counted = made
    found = search.search(counted, metric.dice)
    specks, guessed, gated = found.rules
    assert not specks.empty
    assert 9 < max(specks.min_area, specks.min_component) <= 64
    assert guessed.empty
    assert found.kinds[1] == search.NOTHING
    assert 0.3 < gated.gate <= 0.7 or gated.soft > 1
    alone = evidence.gather(both[:1], truth, SPEC, clusters=made[1])
    without = search.search(alone, metric.dice)
    assert [(rule.gate, rule.soft) for rule in without.rules] == [(0, 1)] * 3
    assert found.crossfitted.value > without.crossfitted.value + 0.02
    assert found.crossfitted.value > found.default.value + 0.05
    assert found.naive.value >= found.crossfitted.value > found.naive.value - 0.02


def test_the_cross_fitted_score_is_of_rules_that_did_not_see_the_image(made):
    counted = made[3]
    found = search.search(counted, metric.dice)
    assert search.score_counts(metric.dice, *found.outside) == found.crossfitted
    part = 4
    grid = search.all_grids(counted, metric.dice, found.parts)[0][1]
    before = grid.pick(frozenset({part}))
    changed = grids.Grid(grid.kind, grid.gains.copy(), grid.rule)
    changed.gains[part] = np.random.default_rng(0).normal(size=grid.gains[part].shape) * 100
    changed.__post_init__()
    assert changed.pick(frozenset({part})) == before
    assert changed.pick(frozenset()) != before


def test_a_gate_that_knows_nothing_is_not_used(made):
    counted = made[3]
    rng = np.random.default_rng(5)
    noise = replace(counted, gate=rng.random((240, 3)).astype(np.float32))
    rules = search.search(noise, metric.dice).rules
    assert [(rule.gate, rule.soft) for rule in rules[:2]] == [(0, 1)] * 2
    assert rules[2].gate < 0.1


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
    """Apply a rule to counts; return its score above that of predicting nothing."""
    counts = search.count_rules(counted, [rule])
    nothing = search.count_rules(counted, [search.EMPTY])
    return metric.dice(*counts).mean() - metric.dice(*nothing).mean()


@pytest.mark.parametrize(("skill", "optimism"), [(0, 0.001), (0.6, 0.004), (0.9, 0.003)])
def test_the_answer_is_never_below_the_floor_nor_flattered(skill, optimism):
    rng = np.random.default_rng(1)
    fresh = random_counts(rng, 20_000, skill=skill)
    gaps, gains = [], []
    for _ in range(60):
        found = search.search(random_counts(rng, 150, skill=skill), metric.dice)
        promised = found.crossfitted.value - found.crossfitted.floor
        assert promised >= 0
        assert found.naive.value >= found.naive.floor
        if found.rules[0].empty:
            assert found.naive.value == found.naive.floor
        gains.append(gain_of(found.rules[0], fresh))
        gaps.append(promised - gains[-1])
    assert abs(np.mean(gaps)) < optimism
    assert np.mean(gains) > -0.005
    assert np.mean(gains) > 0.02 or skill < 0.9


def kind(gains, name="x"):
    return grids.Grid(name, gains, lambda cell: ClassRule(min_area=sum(cell)))


def test_choose_takes_the_plainest_that_is_as_good():
    plain, tuned = np.full((5, 1), -1.0), np.full((5, 31, 4), -1.0)
    assert search.choose([kind(plain, "default"), kind(tuned)]) == (search.NOTHING, search.EMPTY)
    plain[:] = 1.0
    assert search.choose([kind(plain, "default"), kind(tuned)]).kind == "default"
    tuned[:] = 1.0
    assert search.choose([kind(plain, "default"), kind(tuned)]).kind == "default"
    tuned[:, 20:25, 1:] = 2.0
    assert search.choose([kind(plain, "default"), kind(tuned)]) == ("x", ClassRule(min_area=24))


def test_one_lucky_part_is_not_believed():
    gains = np.full((5, 31, 4), -0.1)
    for part in range(5):
        gains[part, 6 * part : 6 * part + 3] = 0.8
    assert gains.sum(axis=0).max() > 0.3
    assert search.choose([kind(np.full((5, 1), -0.1)), kind(gains)]).kind == search.NOTHING


def test_pick_prefers_the_middle_of_a_plateau_to_a_peak():
    table = np.zeros((9, 7, 1))
    table[0, 6] = 5.0
    table[3:8, 1:6] = 3.0
    assert grids.plateau(table) == (5, 3, 0)
    assert grids.plateau(np.zeros((9, 7, 3))) == (4, 3, 1)


def test_what_is_picked_without_parts_is_picked_from_the_others():
    rng = np.random.default_rng(0)
    gains = rng.normal(size=(5, 9, 7))
    for excluded in (frozenset(), frozenset({1}), frozenset({0, 4})):
        grid = kind(gains)
        kept = [part for part in range(5) if part not in excluded]
        assert grid.pick(excluded) == grids.plateau(gains[kept].sum(axis=0))
        inside = gains[(kept, *grid.pick(excluded))].sum()
        assert grid.inside(excluded) == pytest.approx(inside)


def test_parts_keep_clusters_whole_and_share_classes():
    rng = np.random.default_rng(0)
    clusters = rng.integers(0, 300, 500)
    present = (rng.random((300, 2)) < 0.2)[clusters]
    parts = search.make_parts(clusters, present)
    assert sorted(set(parts)) == list(range(10))
    for cluster in set(clusters.tolist()):
        assert len(set(parts[clusters == cluster])) == 1
    groups = np.unique(np.column_stack([clusters, parts, present]), axis=0)
    counts = [groups[groups[:, 1] == part, 2:].sum(axis=0) for part in range(10)]
    assert np.ptp(counts, axis=0).max() <= 3
    assert search.make_parts(np.array([7, 7, 9]), np.zeros((3, 1), bool)).max() == 1


def test_a_single_group_leaves_the_default_or_nothing():
    counted = random_counts(np.random.default_rng(0), 40, skill=1)
    single = replace(counted, clusters=np.zeros(40, np.int64))
    found = search.search(single, metric.dice)
    assert found.rules[0] in (ClassRule(), ClassRule(empty=True))


def test_a_metric_of_whole_images_can_be_tuned_too():
    counted = random_counts(np.random.default_rng(0), 100, skill=0.9)
    whole = search.search(counted, lambda i, p, t: metric.dice(i, p, t).mean(axis=1))
    assert whole == search.search(counted, metric.dice)


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
    at = int(np.flatnonzero(evidence.THRESHOLDS == 0.5)[0])
    assert counted.predicted[1, :, at].tolist() == (mean >= 0.5).sum(axis=(1, 2)).tolist()
    with pytest.raises(DataError, match="no image that all members"):
        evidence.gather(both, truth, SPEC, clusters={"a": 0})

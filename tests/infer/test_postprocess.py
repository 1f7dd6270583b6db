import numpy as np
import pytest

from kagflow.errors import DataError
from kagflow.infer.postprocess import ClassRule, apply, apply_labels, mean_of, vetoed


def maps():
    probs = np.zeros((3, 4, 5), np.float32)
    probs[0, 0, :3] = 0.5
    probs[1, 1, :2] = 0.9
    probs[2] = 1.0
    return probs


def test_a_pixel_counts_from_the_threshold_on():
    assert apply(maps(), None, [ClassRule(0.5)] * 3).sum((1, 2)).tolist() == [3, 2, 20]
    assert apply(maps(), None, [ClassRule(0.51)] * 3).sum((1, 2)).tolist() == [0, 2, 20]


def test_a_mask_below_the_area_is_dropped_whole():
    rules = [ClassRule(0.5, 3), ClassRule(0.5, 3), ClassRule(0.5, 20)]
    assert apply(maps(), None, rules).sum((1, 2)).tolist() == [3, 0, 20]


def test_gate_and_empty_veto_a_class():
    labels = np.array([0.2, 0.3, 0.9], np.float32)
    rules = [ClassRule(gate=0.3), ClassRule(gate=0.3), ClassRule(empty=True)]
    assert vetoed(labels, rules).tolist() == [True, False, True]
    assert vetoed(None, rules).tolist() == [False, False, True]
    assert apply(maps(), labels, rules).sum((1, 2)).tolist() == [0, 2, 0]


def test_rules_must_match_the_classes():
    with pytest.raises(ValueError, match="zip"):
        apply(maps(), None, [ClassRule()] * 2)


def test_labels_by_threshold_or_the_best_one():
    labels = np.array([0.4, 0.6, 0.7], np.float32)
    rules = [ClassRule(0.4), ClassRule(0.65), ClassRule(0.5)]
    assert apply_labels(labels, rules, exclusive=False) == [0, 2]
    assert apply_labels(labels, rules, exclusive=True) == [2]
    out = [ClassRule(), ClassRule(), ClassRule(empty=True)]
    assert apply_labels(labels, out, exclusive=True) == [1]
    assert apply_labels(labels, [ClassRule(empty=True)] * 3, exclusive=True) == []


def test_a_rule_with_a_strange_key_is_refused():
    assert ClassRule.from_dict({"threshold": 0.3}) == ClassRule(0.3)
    with pytest.raises(DataError, match="treshold"):
        ClassRule.from_dict({"treshold": 0.3})


def specks():
    """One map: 12 pixels in one piece, 3 that touch at corners only, 1 alone."""
    probs = np.zeros((1, 8, 12), np.float32)
    probs[0, :3, :4] = 0.75
    for step in range(3):
        probs[0, 4 + step, 5 + step] = 0.875
    probs[0, 7, 11] = 0.875
    return probs


@pytest.mark.parametrize(
    ("smallest", "left"), [(0, 16), (1, 16), (2, 15), (3, 15), (4, 12), (12, 12), (13, 0)]
)
def test_small_components_are_dropped_one_by_one(smallest, left):
    rule = ClassRule(0.5, min_component=smallest)
    assert apply(specks(), None, [rule]).sum() == left
    assert apply(np.zeros((1, 8, 12), np.float32), None, [rule]).sum() == 0


def test_the_area_in_all_is_that_of_the_components_that_stay():
    assert apply(specks(), None, [ClassRule(0.5, 15, 3)]).sum() == 15
    assert apply(specks(), None, [ClassRule(0.5, 16, 3)]).sum() == 0


def test_a_seed_decides_and_the_threshold_draws():
    assert apply(specks(), None, [ClassRule(0.5, 4, seed=0.8)]).sum() == 16
    assert apply(specks(), None, [ClassRule(0.5, 5, seed=0.8)]).sum() == 0


@pytest.mark.parametrize(("seen", "left"), [(1.0, 16), (0.75, 16), (0.7, 0), (0.0, 0)])
def test_a_soft_gate_asks_for_more_where_it_doubts(seen, left):
    # 8 pixels at p = 1, 16 at p = .75, 40 at p = 0.
    rule = ClassRule(0.5, 8, soft=5)
    assert apply(specks(), np.array([seen], np.float32), [rule]).sum() == left
    assert apply(specks(), None, [rule]).sum() == 16


def test_a_rule_of_an_older_file_reads_as_before():
    old = {"threshold": 0.25, "min_area": 3, "gate": 0.5, "empty": False}
    assert ClassRule.from_dict(old) == ClassRule(0.25, 3, gate=0.5)


def test_a_mean_of_logits_in_a_kernel_sees_no_more_than_out_of_fold_maps_hold():
    seen = np.array([0.001, 0.01, 0.0156, 0.02, 0.5, 0.9999], np.float32)
    kept = np.round(255 * seen) / 255
    kept[kept < 4 / 255] = 0
    sure = np.full_like(seen, 0.9)
    found = mean_of([seen, sure], [0.5, 0.5])
    tuned = mean_of([kept.astype(np.float32), sure], [0.5, 0.5])
    assert np.abs(found - tuned).max() < 0.02
    assert found[0] == found[1] == tuned[0]

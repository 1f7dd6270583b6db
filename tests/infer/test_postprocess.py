import numpy as np
import pytest

from kagflow.errors import DataError
from kagflow.infer.postprocess import ClassRule, apply, apply_labels, vetoed


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

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kagflow.errors import UsageError
from kagflow.task import metric
from kagflow.task.spec import TaskSpec

SETS = st.lists(st.tuples(st.sets(st.integers(0, 9)), st.sets(st.integers(0, 9))), min_size=1)


def arrays(pairs):
    return (
        np.array([[len(a & b)] for a, b in pairs]),
        np.array([[len(a)] for a, _ in pairs]),
        np.array([[len(b)] for _, b in pairs]),
    )


def spec(name):
    return TaskSpec("x", "segmentation", ("1",), metric=name)


def test_dice_known_answers():
    found = metric.dice(
        np.array([[0, 0, 3, 2]]), np.array([[0, 5, 3, 4]]), np.array([[0, 0, 3, 4]])
    )
    assert found.tolist() == [[1, 0, 1, 0.5]]


def test_iou_known_answers():
    found = metric.iou(np.array([[0, 0, 3, 2]]), np.array([[0, 5, 3, 4]]), np.array([[0, 0, 3, 4]]))
    assert found.tolist() == [[1, 0, 1, 2 / 6]]


@given(SETS)
def test_dice_and_iou_agree_with_sets_of_pixels(pairs):
    counts = arrays(pairs)
    by_hand = [2 * len(a & b) / (len(a) + len(b)) if a or b else 1 for a, b in pairs]
    assert metric.dice(*counts)[:, 0].tolist() == pytest.approx(by_hand)
    by_hand = [len(a & b) / len(a | b) if a or b else 1 for a, b in pairs]
    assert metric.iou(*counts)[:, 0].tolist() == pytest.approx(by_hand)


def test_exact_match_judges_the_whole_image():
    true = np.array([[1, 0], [1, 1], [0, 0], [0, 0]])
    predicted = np.array([[1, 0], [1, 0], [0, 0], [0, 1]])
    assert metric.exact_match(true & predicted, predicted, true).tolist() == [1, 0, 1, 0]


@pytest.mark.parametrize("name", sorted(metric.METRICS))
def test_truth_scores_one_by_every_built_in(name):
    true = np.array([[1, 0, 1], [0, 0, 0]])
    assert metric.load(spec(name))(true, true, true).mean() == 1


def test_a_users_metric_is_found_and_a_misspelt_one_is_named():
    assert metric.load(spec("numpy:maximum")) is np.maximum
    with pytest.raises(UsageError, match="dise") as caught:
        metric.load(spec("dise"))
    assert "dice" in caught.value.hint

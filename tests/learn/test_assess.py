from __future__ import annotations

import numpy as np
import pytest

from kagflow.errors import UsageError
from kagflow.learn import perimage
from kagflow.learn.assess import assess, compare
from kagflow.learn.perimage import Images
from kagflow.task import metric

#          found well, found ill, missed, invented, clean, clean
TRUE = [100, 100, 100, 0, 0, 0]
PREDICTED = [100, 60, 0, 20, 0, 0]
BOTH = [100, 40, 0, 0, 0, 0]


def result(name="run", *, judge=metric.dice, shift=0):
    counts = np.zeros((3, 6, 2), np.int64)
    counts[:, :, 0] = TRUE, np.add(PREDICTED, shift), BOTH
    counts[0, 0, 1] = counts[1, 0, 1] = counts[2, 0, 1] = 9
    images = Images(tuple("abcdef"), np.array([0, 0, 1, 2, 3, 4]), np.array([0, 0, 0, 1, 1, 1]))
    return perimage.from_counts(name, ("1", "2"), images, counts, judge)


def test_a_score_is_taken_apart():
    worth = assess(result(), metric.dice)
    first, second = worth.classes
    assert (first.found.images, first.missed.images, first.invented.images) == (2, 1, 1)
    assert (first.clean, second.clean) == (2, 5)
    assert first.found.points == pytest.approx(0.5 / 12)
    assert first.missed.points == first.invented.points == pytest.approx(1 / 12)
    lost = sum(k.points for one in worth.classes for k in (one.found, one.missed, one.invented))
    assert worth.score == pytest.approx(1 - lost)
    assert (first.score, first.floor) == (pytest.approx(3.5 / 6), 0.5)
    assert first.gain == pytest.approx(first.score - first.floor)
    assert first.nonempty == pytest.approx(0.5)
    assert worth.score == pytest.approx((first.score + second.score) / 2)
    assert worth.floor == pytest.approx((0.5 + 5 / 6) / 2)
    assert worth.gain == pytest.approx(worth.score - worth.floor)
    assert worth.nonempty == pytest.approx((1 + 0.5 + 0 + 1) / 4)
    assert (worth.images, worth.clusters) == (6, 5)
    assert worth.interval[0] < worth.score < worth.interval[1]


def test_folds_pool_to_the_whole():
    worth = assess(result(), metric.dice)
    assert [(one.fold, one.images) for one in worth.folds] == [(0, 3), (1, 3)]
    assert np.mean([one.score for one in worth.folds]) == pytest.approx(worth.score)
    assert np.mean([one.floor for one in worth.folds]) == pytest.approx(worth.floor)


def test_a_metric_of_whole_images_has_no_points_by_class():
    worth = assess(result(judge=metric.exact_match), metric.exact_match)
    assert worth.score == pytest.approx(3 / 6)
    assert worth.classes[0].missed is None
    assert worth.classes[0].score == pytest.approx(3 / 6)


def test_pairs_are_compared_image_by_image():
    found = compare(result("a"), result("b", shift=30))
    assert (found.first, found.second, found.images) == ("a", "b", 6)
    assert found.paired.difference == pytest.approx(found.scores[0] - found.scores[1])
    assert found.paired.better > 0.98
    assert compare(result("a"), result("b")).paired.better == 0.5


def test_masks_and_labels_are_not_compared():
    labels = result("gate")
    ones = np.minimum(np.stack([labels.true, labels.predicted, labels.intersection]), 1)
    images = Images(labels.image_ids, labels.clusters, labels.folds)
    gate = perimage.from_counts("gate", ("1", "2"), images, ones, metric.dice)
    with pytest.raises(UsageError, match="run and gate are judged by different things"):
        compare(result(), gate)

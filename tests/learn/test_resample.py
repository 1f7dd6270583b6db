from __future__ import annotations

import numpy as np
import pytest

from kagflow.learn.resample import draw_means, interval, paired


def test_intervals_of_independent_images_are_the_textbook_ones():
    rng = np.random.default_rng(0)
    values = rng.normal(0.5, 0.1, 4000)
    low, high = interval(values, np.arange(4000))
    error = 0.1 / np.sqrt(4000)
    assert low == pytest.approx(0.5 + values.mean() - 0.5 - 1.96 * error, abs=error / 5)
    assert high - low == pytest.approx(3.92 * error, rel=0.1)


def test_copies_are_no_evidence():
    rng = np.random.default_rng(0)
    values = rng.normal(size=300)
    alone = interval(values, np.arange(300))
    copied = interval(np.repeat(values, 10), np.repeat(np.arange(300), 10))
    assert copied == pytest.approx(alone)
    believed = interval(np.repeat(values, 10), np.arange(3000))
    assert believed[1] - believed[0] < (copied[1] - copied[0]) / 2


def test_a_pair_sees_the_same_draws():
    rng = np.random.default_rng(0)
    hard = rng.normal(size=400)
    found = paired(hard + 0.01, hard, np.arange(400))
    assert (found.low, found.high) == pytest.approx((0.01, 0.01))
    assert found.better == 1
    same = paired(hard, hard, np.arange(400))
    assert (same.difference, same.better) == (0, 0.5)
    other = paired(hard, rng.permutation(hard), np.arange(400))
    assert 0.2 < other.better < 0.8


def test_clusters_weigh_what_they_hold_and_draws_are_repeatable():
    values = np.array([[0.0], [1.0], [1.0], [1.0]])
    means = draw_means(values, np.array([5, 9, 9, 9]))
    assert sorted(set(means.ravel().tolist())) == [0, 0.75, 1]
    assert np.array_equal(means, draw_means(values, np.array([5, 9, 9, 9])))

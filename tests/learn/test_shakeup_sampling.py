"""What sampling by cluster says, against the variance of draws that are known."""

from __future__ import annotations

import numpy as np
import pytest

from kagflow.errors import DataError
from kagflow.learn.shakeup_sampling import (
    Paired,
    covariance,
    draw_means,
    group_size,
    predict_interval,
)


def draw(rng, groups: int, size: int, candidates: int = 2) -> Paired:
    """Scores with a part that all images of a cluster share."""
    shared = rng.normal(0, 0.1, (candidates, groups)).repeat(size, axis=1)
    common = rng.normal(0, 0.3, groups * size)
    own = rng.normal(0, 0.1, (candidates, groups * size))
    return Paired(0.8 + shared + common + own, np.arange(groups).repeat(size))


def test_covariance_is_that_of_means_over_fresh_clusters() -> None:
    rng = np.random.default_rng(0)
    found = covariance(draw(rng, 4000, 3)) / 300
    fresh = np.cov(np.array([draw(rng, 100, 3).means for _ in range(3000)]).T)
    np.testing.assert_allclose(found, fresh, rtol=0.12)


def test_the_bootstrap_agrees_with_the_linearised_variance() -> None:
    paired = draw(np.random.default_rng(1), 300, 4)
    drawn = draw_means(paired, 400, draws=4000, rng=np.random.default_rng(2))
    np.testing.assert_allclose(np.cov(drawn.T), covariance(paired) / 400, rtol=0.12)
    np.testing.assert_allclose(drawn.mean(axis=0), paired.means, atol=2e-3)


def test_rows_alone_would_see_less_than_clusters() -> None:
    paired = draw(np.random.default_rng(3), 500, 4)
    rows = Paired(paired.scores, np.arange(paired.images))
    contrast = np.array([1, -1])
    assert contrast @ covariance(paired) @ contrast > 2 * (contrast @ covariance(rows) @ contrast)


def test_unequal_clusters_count_by_their_images() -> None:
    assert group_size(np.array([0, 0, 0, 1])) == pytest.approx(10 / 4)
    scores = np.array([[1.0, 1.0, 1.0, 0.0]])
    drawn = draw_means(
        Paired(scores, np.array([5, 5, 5, 9])), 4, draws=500, rng=np.random.default_rng(0)
    )
    # Two of two clusters: both of one kind, or one each.
    assert set(np.round(drawn.ravel(), 6)) == {0.0, 0.75, 1.0}


def test_prediction_intervals_count_both_samples() -> None:
    rng = np.random.default_rng(4)
    hits = []
    for seed in range(150):
        first, second = draw(rng, 80, 3, 1), draw(rng, 160, 3, 1)
        ((low, high),) = predict_interval(first, second.images, draws=300, seed=seed)
        hits.append(low <= second.means[0] <= high)
    assert 0.83 <= np.mean(hits) <= 0.96


def test_what_was_tuned_on_the_images_is_less_certain() -> None:
    paired = draw(np.random.default_rng(5), 100, 3, 1)
    plain, tuned = (
        np.ptp(predict_interval(paired, paired.images, parts=parts, draws=300)) for parts in (0, 10)
    )
    assert tuned / plain == pytest.approx(np.sqrt((1 + 1 + 5 / 9) / 2))


def test_a_variance_that_few_clusters_make_up_is_less_certain() -> None:
    # One image of a hundred decides: normal tails would be taken for known.
    scores = np.ones((1, 100))
    scores[0, :2] = 0
    rare = predict_interval(Paired(scores, np.arange(100)), 100, draws=2000)
    drawn = draw_means(
        Paired(scores, np.arange(100)), 100, draws=2000, rng=np.random.default_rng(0)
    )
    plain = np.ptp(np.quantile(drawn, [0.05, 0.95])) * np.sqrt(2)
    assert np.ptp(rare) > 1.2 * plain


@pytest.mark.parametrize(
    ("scores", "clusters"),
    [
        (np.ones((2, 3)), np.zeros(2, int)),
        (np.ones((2, 0)), np.zeros(0, int)),
        (np.array([[1.0, np.nan]]), np.zeros(2, int)),
    ],
)
def test_scores_that_cannot_be_compared_are_refused(scores, clusters) -> None:
    with pytest.raises(DataError):
        Paired(scores, clusters)

"""What is believed of private scores: pooled, moved by drift, blind to what is private."""

from __future__ import annotations

import numpy as np
import pytest

from kagflow.learn.shakeup_posterior import NO_DRIFT, Sizes, beats, believe
from kagflow.learn.shakeup_sampling import Paired

SIZES = Sizes(1800, 3700)


@pytest.fixture(scope="module")
def paired() -> Paired:
    rng = np.random.default_rng(0)
    common = rng.normal(0, 0.2, 6000)
    own = rng.normal(0, 0.08, (5, 6000))
    own -= own.mean(axis=1, keepdims=True)
    return Paired(0.9 + np.arange(5)[:, None] * 0.001 + common + own, np.arange(6000))


def expected(paired, public, **kwargs):
    beliefs = believe(paired, public, SIZES, seed=1, **kwargs)
    return beliefs.private.mean(axis=0), beliefs


def test_without_public_scores_the_expectation_is_out_of_fold(paired: Paired) -> None:
    # The common shift is unknown, so only differences can be expected.
    found, beliefs = expected(paired, [None] * 5)
    np.testing.assert_allclose(np.diff(found), np.diff(paired.means), atol=2e-3)
    assert beliefs.seen == 0


def test_a_shift_that_all_share_changes_no_order(paired: Paired) -> None:
    near = [float(mean) for mean in paired.means]
    found, beliefs = expected(paired, near)
    lower, beliefs_lower = expected(paired, [score - 0.04 for score in near])
    np.testing.assert_allclose(found - lower, 0.04, atol=1e-3)
    np.testing.assert_allclose(beats(beliefs), beats(beliefs_lower), atol=0.02)


def test_with_public_as_out_of_fold_says_they_are_pooled_by_images(paired: Paired) -> None:
    # A public reversal of the size of its noise barely moves three times as many images.
    public = [0.9, 0.901, 0.902, 0.903, 0.904]
    public[4] -= 0.002
    found, _ = expected(paired, public, drifts=NO_DRIFT, draws=6000)
    weight = (found[4] - found[0] - 0.004) / -0.002
    assert weight == pytest.approx(1800 / 7800, abs=0.06)


def test_strong_drift_makes_the_public_order_count(paired: Paired) -> None:
    turned = [0.86 - 0.01 * at for at in range(5)]
    found, beliefs = expected(paired, turned)
    assert beliefs.drift > 0.9
    assert list(np.argsort(-found)) == [0, 1, 2, 3, 4]
    assert beats(beliefs)[0, 4] > 0.95


def test_drift_seen_in_others_moves_what_was_not_submitted(paired: Paired) -> None:
    # Candidate 1 is nearly candidate 0, so it goes where candidate 0 went.
    scores = paired.scores.copy()
    scores[1] = scores[0] + 1e-4
    twins = Paired(scores, paired.clusters)
    public = [0.93, None, 0.87, 0.87, 0.87]
    found, _ = expected(twins, public)
    assert found[1] == pytest.approx(found[0], abs=6e-3)
    assert found[1] > found[2] + 0.04


def test_equal_candidates_are_a_draw(paired: Paired) -> None:
    scores = paired.scores.copy()
    scores[1] = scores[0]
    beliefs = believe(Paired(scores, paired.clusters), [0.9, 0.9, None, None, None], SIZES)
    chances = beats(beliefs)
    assert chances[0, 1] == pytest.approx(0.5, abs=0.1)
    np.testing.assert_allclose(chances + chances.T, 1)
    assert np.isfinite(beliefs.private).all()


def test_unnamed_groups_are_allowed_for_unless_clusters_are_whole_groups(paired: Paired) -> None:
    alone = believe(paired, [None] * 5, SIZES, drifts=NO_DRIFT)
    assert alone.design > 2
    rolls = Paired(paired.scores, np.arange(6000) // 100)
    assert believe(rolls, [None] * 5, SIZES, drifts=NO_DRIFT).design == 1


def test_public_noise_is_that_of_the_public_size(paired: Paired) -> None:
    noise = believe(paired, [None] * 5, SIZES, drifts=NO_DRIFT)
    exact = np.sqrt(2) * 0.08 / np.sqrt(SIZES.public) * np.sqrt(noise.design)
    assert noise.public_noise[0, 1] == pytest.approx(exact, rel=0.05)


def test_the_same_seed_gives_the_same_draws(paired: Paired) -> None:
    public = [0.9, None, 0.9, 0.91, None]
    first, again = (believe(paired, public, SIZES, draws=200, seed=7).private for _ in range(2))
    np.testing.assert_array_equal(first, again)


def test_one_candidate_alone_is_judged(paired: Paired) -> None:
    one = believe(Paired(paired.scores[:1], paired.clusters), [0.88], SIZES)
    assert one.private.mean() == pytest.approx(0.88, abs=0.005)

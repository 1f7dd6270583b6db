"""The comparison of two arms, on made-up scores whose answer is known."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from kagflow.infer.postprocess import ClassRule
from kagflow.learn.evidence import THRESHOLDS, Evidence
from kagflow.task.metric import dice


def _load() -> ModuleType:
    path = Path(__file__).parents[2] / "bench" / "quality_stats.py"
    spec = importlib.util.spec_from_file_location("quality_stats", path)
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    sys.modules["quality_stats"] = module
    spec.loader.exec_module(module)
    return module


stats = _load()
ALONE = np.arange(200)


def _scores(mean: float, spread: float, seed: int) -> np.ndarray:
    return mean + spread * np.random.default_rng(seed).standard_normal(200)


def test_a_constant_gain_has_an_interval_of_no_width_and_wins() -> None:
    base = _scores(0.5, 0.2, 0)
    found = stats.paired([base + 0.03], [base], ALONE)
    assert found.gain == pytest.approx(0.03)
    assert (found.low, found.high) == pytest.approx((0.03, 0.03))
    assert found.verdict == "win"


def test_the_same_gain_the_other_way_is_a_loss() -> None:
    base = _scores(0.5, 0.2, 0)
    assert stats.paired([base], [base + 0.03], ALONE).verdict == "loss"


def test_noise_is_a_tie() -> None:
    found = stats.paired([_scores(0.5, 0.2, 1)], [_scores(0.5, 0.2, 2)], ALONE)
    assert found.verdict == "tie"
    assert found.low < found.gain < found.high


def test_the_interval_of_independent_images_is_that_of_the_normal() -> None:
    noise = _scores(0.0, 0.2, 3)
    found = stats.paired([noise], [np.zeros(200)], ALONE)
    half = 1.96 * noise.std() / np.sqrt(200)
    assert found.high - found.gain == pytest.approx(half, rel=0.05)
    assert found.gain - found.low == pytest.approx(half, rel=0.05)


def test_images_of_one_cluster_count_once() -> None:
    # Four copies of each image: the interval is that of 50 images, twice that of 200.
    noise = np.repeat(_scores(0.02, 0.2, 4)[:50], 4)
    clusters = np.repeat(np.arange(50), 4)
    whole = stats.paired([noise], [np.zeros(200)], clusters)
    naive = stats.paired([noise], [np.zeros(200)], ALONE)
    assert (whole.high - whole.low) / (naive.high - naive.low) == pytest.approx(2, rel=0.1)


def test_scores_are_averaged_over_seeds_and_their_spread_is_told() -> None:
    arms = [np.full(200, one) for one in (0.5, 0.6, 0.7)]
    found = stats.paired(arms, [np.full(200, 0.6)], ALONE)
    assert found.ours == pytest.approx(0.6)
    assert found.gain == pytest.approx(0)
    assert found.ours_spread == pytest.approx(0.1)
    assert found.theirs_spread is None
    assert found.verdict == "tie"


def test_arms_on_different_images_are_refused() -> None:
    with pytest.raises(ValueError, match="different images"):
        stats.paired([np.zeros(3)], [np.zeros(4)], np.arange(4))


def test_only_arms_without_any_rule_left_are_all_empty() -> None:
    empty, full = ClassRule(empty=True), ClassRule()
    assert stats.all_empty([(empty, empty), (empty, empty)])
    assert not stats.all_empty([(empty, empty), (empty, full)])


def _evidence() -> Evidence:
    """Two classes on 40 images: a real defect of 100 pixels or a speck of 5 on clean ones."""
    count, at = 40, len(THRESHOLDS)
    true = np.zeros((count, 2), np.int64)
    true[:20, 0] = 100
    predicted = np.zeros((count, 2, at), np.int64)
    predicted[:20, 0] = 100
    predicted[20:, 0] = 5
    inside = np.zeros_like(predicted)
    inside[:20, 0] = 80
    names = tuple(f"{n}.png" for n in range(count))
    return Evidence(names, np.arange(count), true, predicted, inside, None, 4096)


def test_counts_follow_threshold_area_and_emptiness() -> None:
    rules = [ClassRule(min_area=50), ClassRule(empty=True)]
    counts = stats.counts_under(_evidence(), rules)
    assert counts[1, :20, 0].tolist() == [100] * 20
    assert counts[1, 20:, 0].tolist() == [0] * 20
    assert counts[0, :, 0].sum() == 20 * 80
    assert counts[2, :, 0].sum() == 20 * 100
    assert not counts[:2, :, 1].any()


def test_crossfitting_finds_the_minimum_area_without_seeing_the_part() -> None:
    evidence = _evidence()
    before = stats.per_image(stats.counts_under(evidence, [ClassRule()] * 2), dice)
    after = stats.per_image(stats.crossfitted(evidence, dice), dice)
    # Dice .8 on 20 defects, and 1 on all else, once specks are dropped.
    assert after.mean() == pytest.approx((20 * 0.9 + 20) / 40)
    assert before.mean() == pytest.approx((20 * 0.9 + 20 * 0.5) / 40)


def test_a_rule_that_only_one_part_shows_does_not_help_that_part() -> None:
    # Every image is its own cluster; a lone defect lies in one part, and the others, that hold
    # specks alone, leave the class empty: crossfitted, the defect is missed.
    evidence = _evidence()
    evidence.true[1:20, 0] = 0
    evidence.intersection[1:20, 0] = 0
    counts = stats.crossfitted(evidence, dice)
    assert counts[0].sum() == 0
    assert stats.nonempty(counts, dice) == 0

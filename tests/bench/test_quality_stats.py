"""The comparison of two arms, on made-up scores whose answer is known."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from kagflow.infer.postprocess import ClassRule
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


def test_masks_are_counted_against_run_lengths() -> None:
    masks = np.zeros((2, 4, 5), bool)
    masks[0, :2, 0] = True
    masks[1, 3, 4] = True
    # Column-major and 1-based: the first column's rows 2 to 4.
    counts = stats.count_masks(masks, {0: "2 3"})
    assert counts.tolist() == [[1, 0], [2, 1], [3, 0]]


def test_an_image_is_worth_the_mean_of_its_classes() -> None:
    counts = np.array([[[50, 0], [0, 0]], [[100, 0], [0, 9]], [[100, 0], [10, 0]]])
    assert stats.per_image(counts, dice).tolist() == [0.75, 0.0]
    assert stats.nonempty(counts, dice) == 0.25

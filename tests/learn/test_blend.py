from __future__ import annotations

import numpy as np
import pytest

from kagflow.learn.blend import Blend


def test_counts_are_in_lowest_terms_so_that_equal_blends_are_one():
    assert Blend((2, 4, 0)) == Blend((1, 2, 0)) == Blend.of([1, 0, 1], 3)
    assert Blend((1, 2, 0)) != Blend((1, 2, 0), logits=True)
    blend = Blend((1, 3, 0))
    assert (blend.members, blend.weights) == ((0, 1), (0.25, 0.75, 0))
    assert blend.without(1) == Blend((1, 0, 0))


def test_means_are_weighted_and_leave_out_what_does_not_count():
    rng = np.random.default_rng(0)
    maps = [rng.uniform(0.05, 0.95, (2, 3)).astype(np.float32) for _ in range(2)]
    assert Blend((1, 3, 0)).mean([*maps, None]) == pytest.approx(maps[0] / 4 + maps[1] * 3 / 4)
    odds = np.log(maps[0] / (1 - maps[0])) / 4 + np.log(maps[1] / (1 - maps[1])) * 3 / 4
    wanted = 1 / (1 + np.exp(-odds))
    assert Blend((1, 3, 0), logits=True).mean([*maps, None]) == pytest.approx(wanted, abs=1e-4)
    one = Blend((0, 5))
    assert np.array_equal(one.mean([None, maps[1]]), maps[1])

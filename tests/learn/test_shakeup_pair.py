"""The finals that are picked, the medals that they win, and why a twin is passed over."""

from __future__ import annotations

import numpy as np
import pytest

from kagflow.errors import UsageError
from kagflow.learn.shakeup_pair import medal_rank, medal_worth, pick
from kagflow.learn.shakeup_posterior import Beliefs


def beliefs(private, correlation=None) -> Beliefs:
    private = np.asarray(private, float)
    count = private.shape[1]
    likeness = np.eye(count) if correlation is None else np.asarray(correlation, float)
    return Beliefs(private, private.mean(axis=0), likeness, 1.0, 0.0, np.zeros((count, count)))


def test_the_pair_with_the_highest_expected_maximum_wins() -> None:
    # 0 and 1 are best alone and fail together; 2 is good where they are bad.
    rows = [[0.90, 0.90, 0.80], [0.90, 0.90, 0.80], [0.80, 0.80, 0.90]]
    found = pick(beliefs(rows), [0, 1, 2])
    assert 2 in found.places
    assert found.value == pytest.approx(0.90)
    assert found.alike is None


def test_a_twin_is_passed_over_for_the_least_alike_pair_within_the_cost() -> None:
    rng = np.random.default_rng(0)
    base = 0.9 + rng.normal(0, 0.001, 500)
    twin, other = base + rng.normal(0, 1e-5, 500), base - 1e-4
    alike = [[1, 0.999, 0.9], [0.999, 1, 0.8], [0.9, 0.8, 1]]
    found = pick(beliefs(np.stack([base, twin, other], axis=1), alike), [0, 1, 2])
    assert found.alike == (0, 1)
    assert found.places == (1, 2)
    assert found.correlation == 0.8
    assert found.best - found.value <= 2e-4


def test_diversity_is_not_bought_at_any_price() -> None:
    base = np.full(10, 0.9)
    alike = [[1, 0.999, 0.9], [0.999, 1, 0.9], [0.9, 0.9, 1]]
    worse = np.stack([base, np.where(np.arange(10) < 5, 0.905, 0.89), base - 0.02], axis=1)
    assert pick(beliefs(worse, alike), [0, 1, 2]).places == (0, 1)


def test_only_what_is_allowed_is_picked_and_one_is_enough() -> None:
    rows = np.tile([0.9, 0.8, 0.7], (4, 1))
    assert pick(beliefs(rows), [1, 2]).places == (1, 2)
    assert pick(beliefs(rows), [2]).places == (2,)
    assert pick(beliefs(rows), [0, 1, 2], finals=1).places == (0,)
    assert pick(beliefs(rows), [0, 1, 2], finals=3).places == (0, 1, 2)
    with pytest.raises(UsageError, match="no submission to choose from"):
        pick(beliefs(rows), [])


@pytest.mark.parametrize(
    ("teams", "gold", "silver", "bronze"),
    [
        (50, 5, 10, 20),
        (150, 10, 30, 60),
        (500, 11, 50, 100),
        (2436, 14, 121, 243),
        (3, 1, 1, 1),
    ],
)
def test_medal_ranks_follow_the_team_count(teams, gold, silver, bronze) -> None:
    assert [medal_rank(teams, one) for one in ("gold", "silver", "bronze")] == [
        gold, silver, bronze,
    ]  # fmt: skip
    with pytest.raises(UsageError, match="no medal 'tin'"):
        medal_rank(teams, "tin")


def test_a_medal_is_played_for_with_the_risk_that_it_needs() -> None:
    # 0 and 1 always end at .90; 2 reaches .92 half of the time and falls far else.
    rows = np.array([[0.90, 0.899, 0.92], [0.90, 0.899, 0.80]])
    held = beliefs(rows)
    worth = medal_worth(held, [0.90, None, None], 0.91)
    found = pick(held, [0, 1, 2], worth=worth)
    assert found.places == (0, 2)
    assert found.value == 0.5
    with pytest.raises(UsageError, match="no submission of ours"):
        medal_worth(held, [None] * 3, 0.91)


def test_the_medal_line_moves_with_our_own_files() -> None:
    # Private is harder for everybody: a file that keeps its distance keeps its medal.
    worth = medal_worth(beliefs(np.array([[0.86, 0.85]])), [0.90, 0.89], 0.895)
    assert worth.tolist() == [[1.0, 0.0]]

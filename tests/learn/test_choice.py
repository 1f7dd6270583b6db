from __future__ import annotations

import importlib.util
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from kagflow.learn import candidates
from kagflow.learn.blend import Blend
from kagflow.learn.choice import NONE, Costs, Judge, choose, sole
from kagflow.learn.decide import decide
from kagflow.learn.search import make_parts, search
from kagflow.learn.shed import shedding
from kagflow.task import metric


def _load():
    # Under importlib mode, neighbours are no importable names.
    path = Path(__file__).parents[1] / "gauntlet" / "score_worlds.py"
    spec = importlib.util.spec_from_file_location("score_worlds", path)
    module = importlib.util.module_from_spec(spec)
    # Its dataclasses look themselves up.
    sys.modules["score_worlds"] = module
    spec.loader.exec_module(module)
    return module


worlds = _load()


def additive(values, overlap=0.5):
    """Worth of a blend: what its members bring, less where they are unequally mixed."""

    def worth(blend):
        shares = np.array(blend.weights)
        return float((shares > 0) @ np.array(values) - overlap * (shares**2).sum())

    return worth


def always(blend):
    return True


def test_kinds_go_from_one_member_to_the_weights_that_help_most():
    made = candidates.make_all(4, additive([0.4, 0.3, 0.2, -0.5]), always)
    assert tuple(made) == candidates.KINDS
    assert made["single"] == Blend((1, 0, 0, 0))
    assert made["equal"] == Blend((1, 1, 1, 0))
    assert made["greedy"] == Blend((1, 1, 1, 0))
    assert made["bagged greedy"].counts[3] == 0
    assert set(made["bagged greedy"].members) == {0, 1, 2}


def test_greedy_selection_may_take_a_member_twice():
    target = np.array([0.75, 0.25, 0])

    def worth(blend):
        return -float(np.abs(np.array(blend.weights) - target).sum())

    assert candidates.make_all(3, worth, always)["greedy"] == Blend((3, 1, 0))
    assert candidates.make_all(3, worth, always)["single"] == Blend((1, 0, 0))


def test_no_kind_is_over_the_limit():
    costs = np.array([3.0, 1.0, 1.0, 4.0])

    def fits(blend):
        return costs[list(blend.members)].sum() <= 3.5

    made = candidates.make_all(4, additive([0.9, 0.3, 0.2, 2.0]), fits)
    assert made["single"] == Blend((1, 0, 0, 0))
    for kind, blend in made.items():
        assert fits(blend), kind


@pytest.fixture(scope="module")
def five():
    """Five members: three good and apart, one a copy of the first, one blind."""
    return worlds.five_members(np.random.default_rng(0), 400)


@pytest.fixture(scope="module")
def chosen(five):
    return choose(judge_of(five))


def judge_of(sketch, costs=None, **kinds):
    parts = make_parts(sketch.pool.clusters, sketch.pool.true > 0)
    costs = costs or Costs((1.0,) * sketch.members, (1.0,) * len(sketch.pool.labels))
    return Judge(sketch, metric.dice, parts, costs, **kinds)


def test_members_that_err_apart_are_joined_and_a_blind_one_is_not(chosen):
    assert chosen.kind != "single"
    assert {0, 3} & set(chosen.blend.members)
    assert {1, 2} <= set(chosen.blend.members)
    assert chosen.blend.weights[4] < 0.1
    single, equal = chosen.table[:2]
    assert equal.taken
    assert equal.gain > equal.error > 0
    assert equal.crossfitted > single.crossfitted


def test_copies_are_not_worth_a_second_time():
    sketch = worlds.five_members(np.random.default_rng(0), 400, keep=(0, 3))
    chosen = choose(judge_of(sketch))
    assert chosen.kind == "single"
    assert len(chosen.blend.members) == 1
    assert all(abs(one.gain) <= one.error + 1e-9 for one in chosen.table[1:])


def test_a_part_has_no_say_in_the_members_that_judge_it(five):
    judge = judge_of(five)
    rows = judge.parts == 2
    true = five.pool.true.copy()
    true[rows] = 0
    lied = replace(five, pool=replace(five.pool, true=true))
    other = Judge(lied, metric.dice, judge.parts, judge.costs)
    without = frozenset({2})
    assert other.made(without) == judge.made(without)
    blend = Blend((1, 1, 1, 0, 0))
    assert other.gain(blend, without) == judge.gain(blend, without)
    assert other.gain(blend, NONE) != judge.gain(blend, NONE)


def test_what_is_cross_fitted_is_the_choice_of_members_too(five):
    judge = judge_of(five)
    counted = {}

    def count(blends):
        for blend in blends:
            counted[blend] = five.evidence(blend)
        return [counted[blend] for blend in blends]

    chosen, evidence, found, ungated, single = decide(judge, count)
    assert evidence is counted[chosen.blend]
    assert set(counted) == {chosen.blend, *chosen.turns, *chosen.singles}
    wanted = search(evidence, metric.dice, [counted[blend] for blend in chosen.turns])
    assert found == wanted
    assert np.array_equal(found.outside, wanted.outside)
    assert ungated is None
    alone = search(
        counted[chosen.singles[0]], metric.dice, [counted[blend] for blend in chosen.singles[1:]]
    )
    assert single == alone
    assert single.crossfitted.value < found.crossfitted.value


def test_the_least_worth_for_its_seconds_goes_first(five, chosen):
    blend = Blend((1, 1, 1, 0, 1))
    found = search(five.evidence(blend), metric.dice)
    chosen = replace(chosen, blend=blend)
    order = shedding(judge_of(five), chosen, found)
    assert order[0][0] == 4
    assert len(order) == 4
    # The others are alike in worth, so the slowest of them goes next.
    slow = judge_of(five, Costs((1.0, 50.0, 1.0, 1.0, 1.0)))
    assert [at for at, _, _ in shedding(slow, chosen, found)][1] == 1
    assert sum(worth for _, worth, _ in order) == pytest.approx(
        found.naive.value - found.naive.floor
    )


def test_gates_are_joined_where_that_loses_less():
    sketch = worlds.five_members(np.random.default_rng(0), 400, keep=(0,), labels=(1.0, 1.0, 0.0))
    judge = judge_of(sketch)
    assert judge.gate(NONE) == Blend((1, 1, 0))
    assert sole(judge).gate == Blend((1, 1, 0))
    assert len(sole(judge).gate_turns) == 10
    tight = judge_of(sketch, Costs((1.0,), (1.0, 1.0, 1.0), 2.5))
    assert len(tight.gate(NONE).members) == 1
    assert judge_of(sketch, Costs((1.0,), (2.0, 2.0, 2.0), 2.5)).gate(NONE) is None


def test_logits_are_taken_only_where_they_are_worth_it(chosen):
    last = chosen.table[-1]
    assert last.blend.logits
    assert last.taken == (last.gain > last.error)

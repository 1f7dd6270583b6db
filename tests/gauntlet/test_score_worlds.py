"""Is a cross-fitted score what the same rules score on fresh images of the same world?

Of each world a small draw is searched and a large fresh one scores what was found. The score at
default rules differs between two draws by chance alone, so what it differs by is taken off, as far
as it goes along with the gap (a control variate: its mean is zero).
"""

from __future__ import annotations

import importlib.util
import json
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from kagflow.learn.blend import Blend
from kagflow.learn.choice import Costs, Judge
from kagflow.learn.decide import decide
from kagflow.learn.search import (
    EMPTY,
    count_rules,
    default_score,
    make_parts,
    score_counts,
    search,
)
from kagflow.task.metric import dice

BENCH = Path(__file__).parents[2] / "bench"
FRESH, SMALL, LARGE = 20_000, 451, 2500
MEMBERS, GATES = 6, 1
HONEST = 0.0005


def _load():
    # Under importlib mode, neighbours are no importable names.
    path = Path(__file__).with_name("score_worlds.py")
    spec = importlib.util.spec_from_file_location("score_worlds", path)
    module = importlib.util.module_from_spec(spec)
    sys.modules["score_worlds"] = module
    spec.loader.exec_module(module)
    return module


worlds = _load()


def score(evidence, rules) -> float:
    return score_counts(dice, *count_rules(evidence, rules)).value


def tune(seed: int, images: int, fresh: int = FRESH) -> list[float]:
    """Tune the rules of one model with a gate: naive, cross-fitted, true, and chance's share."""
    world = worlds.make_world(seed)
    other = worlds.draw(world, np.random.default_rng([seed, 2]), fresh)
    known = worlds.draw(world, np.random.default_rng([seed, 1]), images)
    found = search(known, dice)
    chance = default_score(known, dice).value - default_score(other, dice).value
    return [found.naive.value, found.crossfitted.value, score(other, found.rules), chance]


def join(seed: int, images: int, fresh: int = FRESH, members: int = MEMBERS) -> list[float]:
    """Choose among models and a gate, then tune: the same four figures of the whole procedure."""
    models, heats = worlds.make_members(seed, members), worlds.make_heats(seed, GATES)

    def draw(which: int, count: int):
        rng = np.random.default_rng([seed, which])
        return worlds.draw_members(models, worlds.PREVALENCE, rng, count, heats=heats)

    known, other = draw(1, images), draw(2, fresh)
    parts = make_parts(known.pool.clusters, known.pool.true > 0)
    judge = Judge(known, dice, parts, Costs((1.0,) * members, (1.0,) * GATES))
    decision = decide(judge, lambda blends: [known.evidence(one) for one in blends])
    chosen, found = decision.chosen, decision.found
    seen = other.evidence(chosen.blend)
    if chosen.gate is not None:
        seen = replace(seen, gate=chosen.gate.mean(list(other.pool.labels)))
    equal = Blend((1,) * members)
    chance = [default_score(one.evidence(equal), dice).value for one in (known, other)]
    return [
        found.naive.value,
        found.crossfitted.value,
        score(seen, found.rules),
        chance[0] - chance[1],
    ]


def gaps(rows) -> dict[str, tuple[float, float]]:
    """Return mean and standard error of naive and cross-fitted minus true."""
    naive, crossfitted, true, chance = np.array(rows).T
    told = {}
    for name, values in (("naive", naive - true), ("cross-fitted", crossfitted - true)):
        slope = np.cov(values, chance)[0, 1] / chance.var(ddof=1)
        left = values - slope * chance
        told[name] = float(left.mean()), float(left.std(ddof=2) / np.sqrt(len(left)))
    return told


@pytest.mark.parametrize(("play", "images", "count"), [(tune, SMALL, 5), (join, 200, 3)])
def test_a_share_of_the_worlds(tally, play, images, count) -> None:
    rows = []

    def one(seed: int) -> None:
        few = {"members": 2} if play is join else {}
        rows.append(play(seed, images, 3000, **few))

    tally.share(f"score worlds, {play.__name__}", one, range(count))
    told = gaps(rows)
    assert np.mean([row[0] - row[1] for row in rows]) > 0
    assert abs(told["cross-fitted"][0]) < 0.02


def test_a_class_that_is_worth_nothing_stays_empty() -> None:
    # Blind models: whatever is predicted is invented.
    blind = replace(worlds.make_world(0)[0], missed=1.0, invented=0.3, gate=0.1)
    known = worlds.draw((blind, blind), np.random.default_rng(0), SMALL)
    found = search(known, dice)
    assert found.rules == (EMPTY, EMPTY)
    assert found.crossfitted.value == found.naive.value == found.crossfitted.floor


@pytest.mark.gauntlet
@pytest.mark.timeout(7200)
@pytest.mark.parametrize(
    ("play", "images", "count"),
    [(tune, SMALL, 400), (tune, LARGE, 100), (join, SMALL, 120), (join, LARGE, 40)],
)
def test_scores_are_honest(tally, play, images, count) -> None:
    rows = remembered(play, images, count)
    told = gaps(rows)
    (naive, _), (honest, error) = told["naive"], told["cross-fitted"]
    optimism = float(np.mean([row[0] - row[1] for row in rows]))
    note = (
        f"{images} images; minus the score on {FRESH} fresh ones: cross-fitted {honest:+.5f} "
        f"(SE {error:.5f}), naive {naive:+.5f}"
    )
    assert abs(honest) <= HONEST, note
    assert optimism > HONEST, note
    name = {tune: "worlds of one model and its rules", join: "worlds of six models and a gate"}
    tally.full(f"{name[play]}, {images}", lambda _: None, count, note=note)


def remembered(play, images: int, count: int) -> list[list[float]]:
    """Play worlds 0 to count - 1, going on where an earlier run was cut short."""
    state = BENCH / ".gauntlet" / f"scores-{play.__name__}-{images}.json"
    state.parent.mkdir(exist_ok=True)
    rows = json.loads(state.read_text()) if state.is_file() else []
    for seed in range(len(rows), count):
        rows.append(play(seed, images))
        state.write_text(json.dumps(rows))
    state.unlink()
    return rows

"""The governor over random costs on a simulated clock: nobody is late, and little is lost."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest

from kagflow.infer.governor import SHARE, Governor, Order, Plan, plans

LIMIT, BATCH = 3600.0, 8
WORLDS, SHARED = 200, 40
NOTHING = Plan(())


@dataclass
class World:
    """Costs in seconds: of the gate, of each segmenter's view, of all else; drift over the run.

    The first batch of each member takes `cold` seconds more, `loading` comes before any. `priors`
    are the costs as another machine measured them; `gates_after` as in Order.
    """

    images: int
    views: tuple[int, ...]
    gate: float
    costs: np.ndarray
    rest: float
    passing: float
    drift: float
    noise: float
    rng: np.random.Generator
    cold: float = 0.0
    loading: float = 0.0
    priors: tuple[float, ...] = ()
    gate_prior: float = 0.0
    gates_after: int | None = None

    @classmethod
    def draw(cls, rng: np.random.Generator) -> World:
        members = int(rng.integers(1, 6))
        images = int(rng.integers(300, 4000))
        # From half of the limit to five times as much.
        load = float(rng.uniform(0.5, 5)) * LIMIT / images
        split = rng.dirichlet(np.ones(members))
        views = tuple(int(one) for one in rng.integers(1, 4, members))
        gated = rng.random() < 0.5
        return cls(
            images=images,
            views=views,
            gate=float(rng.uniform(0.005, 0.05)) * load if gated else 0.0,
            costs=0.9 * load * split / np.array(views),
            rest=float(rng.uniform(0, 0.08)) * load,
            passing=float(rng.uniform(0.2, 1)) if gated else 1.0,
            drift=float(rng.uniform(-0.3, 0.3)),
            noise=float(rng.uniform(0, 0.3)),
            rng=rng,
        ).elsewhere()

    def elsewhere(self) -> World:
        """Draw what does not change the costs: cold starts, priors, the gates' place."""
        rng, count = self.rng, len(self.views)
        self.cold = float(rng.choice([0.0, rng.uniform(1, 30)]))
        self.loading = float(rng.uniform(0, 90))
        if rng.random() < 0.5:
            scale = rng.uniform(0.2, 20)
            self.priors = tuple(scale * self.costs * rng.uniform(0.7, 1.4, count))
            self.gate_prior = scale * self.gate * rng.uniform(0.7, 1.4)
        if self.gate and rng.random() < 0.3:
            self.gates_after = int(rng.integers(0, count))
        return self

    @property
    def order(self) -> Order:
        return Order(tuple(range(len(self.views))), self.gates_after)

    def slow(self, done: int) -> float:
        return (1 + self.drift * done / self.images) * self.rng.lognormal(0, self.noise)


def play(world: World, boot: float) -> tuple[float, list[Plan]]:
    """Return the time at the end, `boot` seconds before the first image, and each image's plan."""
    now = [boot]
    governor = Governor(
        images=world.images,
        deadline=SHARE * LIMIT,
        plans=plans(world.views, world.order.shed),
        priors=world.priors,
        gate_prior=world.gate_prior,
        clock=lambda: now[0],
    )
    now[0] += world.loading
    got: list[Plan] = []
    waiting = done = 0
    warm: set[object] = set()

    def takes(who: object, seconds: float) -> float:
        seconds = seconds * world.slow(done) + (0.0 if who in warm else world.cold)
        warm.add(who)
        now[0] += seconds
        return seconds

    for start in range(0, world.images, BATCH):
        group = min(BATCH, world.images - start)
        if governor.left <= 0:
            got += [NOTHING] * group
            continue
        asked = governor.gated()
        passed = int(world.rng.binomial(group, world.passing)) if asked else group
        seconds = takes("gate", world.gate * group) if asked else None
        governor.note_gate(images=group, passed=passed, seconds=seconds)
        governor.note_done(group - passed)
        waiting += passed
        while waiting >= BATCH or (waiting and start + BATCH >= world.images):
            batch = min(BATCH, waiting)
            plan = governor.choose(batch)
            for number, views in enumerate(plan.views):
                if views:
                    seconds = takes(number, world.costs[number] * views * batch)
                    governor.note(number, views=views, images=batch, seconds=seconds)
            now[0] += world.rest * batch
            governor.note_done(batch)
            got += [plan] * batch
            waiting -= batch
            done += batch
    return now[0], got


def worth(views: tuple[int, ...], plan: Plan) -> float:
    """Return what a plan is worth, 1 for all: a member half of the one before, TTA a tenth."""
    whole = [0.5**n for n in range(len(views))]
    got = [
        w * (0.0 if not p else 1.0 if p == v else 0.9)
        for w, p, v in zip(whole, plan.views, views, strict=False)
    ]
    return sum(got) / sum(whole)


def oracle(world: World, boot: float, count: int) -> float:
    """Return the worth an image of the best mix of two plans by one who knows every mean cost.

    It knows of nothing that is cold or loaded, and of no plan without the gates.
    """
    choices = [plan for plan in plans(world.views, world.order.shed) if plan.gated]
    mean = (1 + world.drift / 2) * np.exp(world.noise**2 / 2)
    budget = SHARE * LIMIT - boot - world.images * world.gate * mean - count * world.rest
    cost = np.array([float(np.dot(world.costs, plan.views)) * mean * count for plan in choices])
    value = np.array([worth(world.views, plan) for plan in choices])
    best = 0.0
    for first in range(len(choices)):
        for second in range(first, len(choices)):
            if cost[second] > budget:
                continue
            room = cost[first] - cost[second]
            share = 1.0 if cost[first] <= budget else (budget - cost[second]) / max(room, 1e-12)
            best = max(best, share * value[first] + (1 - share) * value[second])
    return best


def one(seed: int, lost: list[float]) -> str:
    """Play a world; return what is wrong, and note the worth lost."""
    rng = np.random.default_rng(seed)
    world, boot = World.draw(rng), float(rng.uniform(20, 200))
    end, got = play(world, boot)
    mine = float(np.mean([worth(world.views, plan) for plan in got])) if got else 1.0
    lost.append(oracle(world, boot, len(got)) - mine)
    # The batch that is under way at the deadline is done.
    return f"ended at {end:.0f} s" if end > (SHARE + 0.01) * LIMIT else ""


def test_share_of_the_worlds(tally):
    lost = []
    tally.share("governor worlds", lambda seed: one(seed, lost), range(SHARED))
    assert np.mean(lost) < 0.05


@pytest.mark.gauntlet
def test_all_worlds(tally):
    lost = []
    faults = [one(seed, lost) for seed in range(WORLDS)]
    note = (
        f"late or past {SHARE:.0%} of the limit; worth lost against an oracle that knew the "
        f"costs: {np.mean(lost):.3f} on average, {max(lost):.3f} at most"
    )
    tally.full("governor worlds", faults.__getitem__, WORLDS, note=note)


def test_while_time_suffices_all_of_the_ensemble_runs():
    rng = np.random.default_rng(0)
    world = World(800, (2, 2), 0.0, np.array([0.5, 0.5]), 0.1, 1.0, 0.0, 0.1, rng)
    assert set(play(world, 30.0)[1]) == {Plan((2, 2))}

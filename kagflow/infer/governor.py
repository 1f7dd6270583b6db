"""Decide how much of the ensemble a batch still gets, so that all images are done in time.

A kernel that is stopped at the limit scores nothing, and nobody sees its log. So the time of every
member is measured as it runs, and before each batch the richest plan is chosen with which all
images that are left would be done by the deadline: first every member with every view, then views
are shed, then members, in the ensemble's own order, at last the segmenters altogether.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

# The share of the limit by which everything is to be done.
SHARE = 0.85
# Forecasts are stretched by it: the next images may be slower than those before.
_CAUTION = 1.05
# The latest batch counts this much in a running mean.
_RECENT = 0.3
# A first batch finds nothing warm: so much of its time is believed of the next.
_COLD = 0.25


class Plan(NamedTuple):
    """How many views each member gets, 0 leaves it out; and whether the gates are asked."""

    views: tuple[int, ...]
    gated: bool = True

    def __str__(self) -> str:
        """Read as "2+1+0"."""
        return "+".join(map(str, self.views)) + ("" if self.gated else ", no gate")


def plans(views: Sequence[int], shed: Sequence[int]) -> list[Plan]:
    """List what can be run, richest first, from the `views` of each member.

    `shed` holds the members' numbers in the order in which they are given up; the number after
    the last stands for the gates, which stay where it is not there. The views beyond the first go
    one member after another, then the members; the last plan runs none.
    """
    now, gated = list(views), True
    found = [Plan(tuple(now))]
    for number in shed:
        if number < len(now) and now[number] > 1:
            now[number] = 1
            found.append(Plan(tuple(now), gated))
    for number in shed:
        if number < len(now):
            now[number] = 0
        else:
            gated = False
        found.append(Plan(tuple(now), gated))
    return found


class Order(NamedTuple):
    """Hold members' numbers by worth per second, the best first, and when the gates go.

    They go after so many members; None: never.
    """

    best: tuple[int, ...]
    gates_after: int | None

    @property
    def shed(self) -> list[int]:
        """Return what `plans` wants once the members are sorted as `best` says."""
        numbers = list(range(len(self.best)))[::-1]
        if self.gates_after is not None:
            numbers.insert(self.gates_after, len(self.best))
        return numbers


def order(listed: Sequence[str], members: Sequence[str], gates: Sequence[str] = ()) -> Order:
    """Read the ensemble's list of names, the first to be given up first.

    Members that it does not name go before those that it does, the last of them first. The gates
    judge together: they go where the list names the last of them, and stay unless it names all.
    """
    place = {name: number for number, name in enumerate(dict.fromkeys(listed))}
    worst = sorted(range(len(members)), key=lambda at: (place.get(members[at], -1), -at))
    last = max((place.get(name, len(place)) for name in gates), default=len(place))
    after = sum(place.get(members[at], -1) < last for at in worst)
    return Order(tuple(worst[::-1]), after if last < len(place) else None)


@dataclass
class _Pace:
    """Seconds an image, a running mean; `batches` counts what was measured."""

    mean: float = 0.0
    batches: int = 0

    @property
    def seconds(self) -> float:
        """Return what the next image is believed to take."""
        return self.mean * (_COLD if self.batches == 1 else 1.0)

    def note(self, seconds: float) -> None:
        # The first batch finds nothing warm: from the second on it is forgotten.
        share = _RECENT if self.batches > 1 else 1.0
        self.mean += share * (seconds - self.mean)
        self.batches += 1


@dataclass
class Governor:
    """Choose a plan for each batch; safe under threads.

    `images` are to be done until `deadline` on `clock`, in seconds, by `lanes` devices at once.
    `priors` are the seconds an image and view that each member took where it was measured before,
    `gate_prior` those of all gates: only their ratios are used, for a member that has not run here
    yet.
    """

    images: int
    deadline: float
    plans: Sequence[Plan]
    lanes: int = 1
    priors: Sequence[float] = ()
    gate_prior: float = 0.0
    clock: Callable[[], float] = time.monotonic
    shed: dict[Plan, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._lock = threading.Lock()
        self._began: float | None = None
        self._paces = [_Pace() for _ in self.plans[0].views]
        self._gate = _Pace()
        # Images behind the gates' stage, and of those that gates saw and let pass.
        self._seen = self._gated = self._passed = 0
        self._sent = self._segmented = self._done = 0
        self._busy = 0.0

    @property
    def left(self) -> float:
        """Seconds until the deadline, below 0 after it."""
        return self.deadline - self.clock()

    def choose(self, images: int) -> Plan:
        """Return the plan for a batch of `images` that passed the gate."""
        with self._lock:
            plan = self._richest(images)
            self._segmented += images
            if plan != self.plans[0]:
                self.shed[plan] = self.shed.get(plan, 0) + images
            return plan

    def gated(self) -> bool:
        """Tell whether the next batch is still to be shown to the gates."""
        if all(plan.gated for plan in self.plans):
            return True
        with self._lock:
            return self._richest(0).gated

    def note(self, member: int, *, views: int, images: int, seconds: float) -> None:
        """Take what a member took for a batch."""
        with self._lock:
            self._paces[member].note(seconds / (views * images))
            self._spent(seconds)

    def note_gate(self, *, images: int, passed: int, seconds: float | None) -> None:
        """Take how many images of a batch go on, and what the gates took; None: nobody asked."""
        with self._lock:
            self._seen += images
            self._sent += passed
            if seconds is None:
                return
            self._gated += images
            self._passed += passed
            self._gate.note(seconds / images)
            self._spent(seconds)

    def note_done(self, images: int) -> None:
        """Count images whose rows are written."""
        with self._lock:
            self._done += images

    def story(self) -> Mapping[str, int]:
        """Return how many images got which plan other than the whole, as text."""
        return {str(plan): count for plan, count in self.shed.items()}

    def _spent(self, seconds: float) -> None:
        if self._began is None:
            # What came before the first batch, as loading the models, comes no more.
            self._began = self.clock() - seconds
        self._busy += seconds

    def _richest(self, batch: int) -> Plan:
        return next((one for one in self.plans if self._fits(one, batch)), self.plans[-1])

    def _fits(self, plan: Plan, batch: int) -> bool:
        unseen = max(self.images - self._seen, 0)
        # Two images of each kind beforehand, so that a lucky start promises nothing.
        share = min((self._passed + 2) / (self._gated + 2), 1.0) if plan.gated else 1.0
        waiting = max(batch, self._sent - self._segmented) + unseen * share
        forward = waiting * self._cost(plan)
        if plan.gated:
            forward += unseen * self._gate.seconds
        rest = max(self.images - self._done, 0) * self._overhead()
        return _CAUTION * (forward / self.lanes + rest) <= self.left

    def _cost(self, plan: Plan) -> float:
        return sum(views * self._pace(number) for number, views in enumerate(plan.views) if views)

    def _pace(self, number: int) -> float:
        """Return seconds an image and view, by the others' ratio to their priors where unknown."""
        pace = self._paces[number]
        if pace.batches or number >= len(self.priors):
            return pace.seconds
        known = [
            one.seconds / prior
            for one, prior in zip(self._paces, self.priors, strict=True)
            if one.batches and prior > 0
        ]
        if not known and self._gate.batches > 1 and self.gate_prior > 0:
            # One batch of gates tells less of the segmenters than of what is cold at first.
            known = [self._gate.seconds / self.gate_prior]
        return self.priors[number] * max(known, default=0.0)

    def _overhead(self) -> float:
        """Return the seconds an image that no model accounts for: decoding, rows, waiting."""
        if not self._done or self._began is None:
            return 0.0
        idle = self.clock() - self._began - self._busy / self.lanes
        return max(idle, 0.0) / self._done

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

# The share of the limit by which everything is to be done.
SHARE = 0.85
# Forecasts are stretched by it: the next images may be slower than those before.
_CAUTION = 1.05
# The latest batch counts this much in a running mean.
_RECENT = 0.3

# How many views each segmenter gets, in the ensemble's order; 0 leaves it out.
Plan = tuple[int, ...]


def plans(views: Sequence[int], shed: Sequence[int]) -> list[Plan]:
    """List what can be run, richest first, from the `views` of each segmenter.

    `shed` holds the segmenters' numbers in the order in which they are given up. The views beyond
    the first go one segmenter after another, then the segmenters; the last plan runs none.
    """
    now = list(views)
    found = [tuple(now)]
    for number in shed:
        if now[number] > 1:
            now[number] = 1
            found.append(tuple(now))
    for number in shed:
        now[number] = 0
        found.append(tuple(now))
    return found


@dataclass
class _Pace:
    """Seconds an image, a running mean; `known` is False before anything was measured."""

    seconds: float = 0.0
    known: bool = False

    def note(self, seconds: float) -> None:
        share = _RECENT if self.known else 1.0
        self.seconds += share * (seconds - self.seconds)
        self.known = True


@dataclass
class Governor:
    """Choose a plan for each batch; safe under threads.

    `images` are to be done until `deadline` on `clock`, in seconds, by `lanes` devices at once.
    `priors` are the seconds an image and view that each segmenter took where it was measured
    before: only their ratios are used, for a segmenter that has not run here yet.
    """

    images: int
    deadline: float
    plans: Sequence[Plan]
    lanes: int = 1
    priors: Sequence[float] = ()
    clock: Callable[[], float] = time.monotonic
    shed: dict[Plan, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._lock = threading.Lock()
        self._began = self.clock()
        self._paces = [_Pace() for _ in self.plans[0]]
        self._gate = _Pace()
        self._gated = self._passed = self._segmented = self._done = 0
        self._busy = 0.0

    @property
    def left(self) -> float:
        """Seconds until the deadline, below 0 after it."""
        return self.deadline - self.clock()

    def choose(self, images: int) -> Plan:
        """Return the plan for a batch of `images` that passed the gate."""
        with self._lock:
            waiting = self._waiting(images)
            plan = next((one for one in self.plans if self._fits(one, waiting)), self.plans[-1])
            self._segmented += images
            if plan != self.plans[0]:
                self.shed[plan] = self.shed.get(plan, 0) + images
            return plan

    def note(self, segmenter: int, *, views: int, images: int, seconds: float) -> None:
        """Take what a segmenter took for a batch."""
        with self._lock:
            self._paces[segmenter].note(seconds / (views * images))
            self._busy += seconds

    def note_gate(self, *, images: int, passed: int, seconds: float) -> None:
        """Take what the gates took for a batch, and how many images they let pass."""
        with self._lock:
            self._gated += images
            self._passed += passed
            self._gate.note(seconds / images)
            self._busy += seconds

    def note_done(self, images: int) -> None:
        """Count images whose rows are written."""
        with self._lock:
            self._done += images

    def story(self) -> Mapping[str, int]:
        """Return how many images got which plan other than the whole, as text."""
        return {"+".join(map(str, plan)): count for plan, count in self.shed.items()}

    def _waiting(self, batch: int) -> float:
        """Return how many images, this batch among them, are still to be segmented."""
        unseen = self.images - self._gated
        # Two images of each kind beforehand, so that a lucky start promises nothing.
        share = (self._passed + 2) / (self._gated + 2)
        return max(batch, self._passed - self._segmented) + unseen * min(share, 1.0)

    def _fits(self, plan: Plan, waiting: float) -> bool:
        unseen = max(self.images - self._gated, 0)
        forward = waiting * self._cost(plan) + unseen * self._gate.seconds
        rest = max(self.images - self._done, 0) * self._overhead()
        return _CAUTION * (forward / self.lanes + rest) <= self.left

    def _cost(self, plan: Plan) -> float:
        return sum(views * self._pace(number) for number, views in enumerate(plan) if views)

    def _pace(self, number: int) -> float:
        """Return seconds an image and view, by the others' ratio to their priors where unknown."""
        pace = self._paces[number]
        if pace.known or number >= len(self.priors):
            return pace.seconds
        known = [
            one.seconds / prior
            for one, prior in zip(self._paces, self.priors, strict=True)
            if one.known and prior > 0
        ]
        return self.priors[number] * max(known, default=0.0)

    def _overhead(self) -> float:
        """Return the seconds an image that no model accounts for: decoding, rows, waiting."""
        if not self._done:
            return 0.0
        idle = self.clock() - self._began - self._busy / self.lanes
        return max(idle, 0.0) / self._done

"""One device and everything that runs on it: the gates and segmenters of an ensemble."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import count
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from kagflow.infer.backend import Backend
from kagflow.infer.decode import Item, distinct_views, to_batch, view_of
from kagflow.infer.forward import forward
from kagflow.infer.members import MEANS, Member, load_member
from kagflow.infer.postprocess import mean_of

Float = NDArray[np.float32]
LOGITS = MEANS[1]
# What a member did not live through, by its name.
OnLoss = Callable[[str, Exception], None]
# Raises where the modules of a member, on a device, are not what they should be.
OnLoad = Callable[[Member, Sequence[nn.Module], str], None]


@dataclass(frozen=True)
class Loaded:
    """A member with its modules; `view` is the index of its input among an item's views."""

    member: Member
    modules: Sequence[nn.Module]
    view: int


class Took(NamedTuple):
    """What a member's turn took for a batch, in seconds."""

    number: int
    views: int
    seconds: float


class Means(NamedTuple):
    """Arrays (N, C, ...) whose sum is the mean, or, with `shares`, what is to be averaged."""

    maps: list[Float]
    shares: tuple[float, ...] = ()


class Lane:
    """Members on one device. One thread at a time may use it.

    Where `on_loss` is given, a member that cannot be loaded, that `on_load` raises for, or that
    fails is left out from then on, unless it is the last that predicts what is `needed`.
    """

    def __init__(
        self,
        device: str,
        precision: str = "auto",
        *,
        needed: str = "mask",
        backend: Backend | None = None,
        on_load: OnLoad | None = None,
        on_loss: OnLoss | None = None,
    ) -> None:
        self.device, self.precision = device, precision
        self._backend = backend if device == "cpu" else None
        self._needed, self._on_load, self._on_loss = needed, on_load, on_loss
        self._alive: Counter[str] = Counter()
        self.gates: dict[int, Loaded] = {}
        self.segmenters: dict[int, Loaded] = {}

    def load(self, members: Sequence[Member], classes: int) -> None:
        """Take members, numbered within their kind."""
        self._alive = Counter(member.predicts for member in members)
        views, numbers = distinct_views(members), {"label": count(), "mask": count()}
        for member in members:
            number = next(numbers[member.predicts])
            try:
                modules = load_member(member, classes, self.device)
                if self._on_load is not None:
                    self._on_load(member, modules, self.device)
                if self._backend is not None:
                    modules = self._backend.choose(member, modules)
            except Exception as error:  # noqa: BLE001 - whatever it is, the others may do without
                self._lose(member, error)
                continue
            place = self.gates if member.predicts == "label" else self.segmenters
            place[number] = Loaded(member, modules, views.index(view_of(member)))

    def gate(self, group: Sequence[Item], plan: Mapping[int, int] | None = None) -> list[Took]:
        """Give a group its labels from all gates, or from those that `plan` gives views to."""
        whole = {number: len(one.member.tta) for number, one in self.gates.items()}
        found, took = self.run(self.gates, group, _here(plan or whole, self.gates))
        if found.maps:
            # Labels have no size of their own: they are averaged here.
            total = mean_of(found.maps, found.shares)
            for item, labels in zip(group, total, strict=True):
                item.labels = labels
        return took

    def segment(self, group: Sequence[Item], plan: Mapping[int, int]) -> list[Took]:
        """Give a group its maps from the segmenters that `plan` gives views to."""
        found, took = self.run(self.segmenters, group, _here(plan, self.segmenters))
        for index, item in enumerate(group):
            item.maps = [each[index] for each in found.maps]
            item.shares = found.shares
            item.views = []
        return took

    @torch.inference_mode()
    def run(
        self, loaded: dict[int, Loaded], group: Sequence[Item], plan: Mapping[int, int]
    ) -> tuple[Means, list[Took]]:
        """Return the means of the members of `plan`, by number, and what each took.

        Members of unequal working size cannot be added before they are resized: one array for
        each size, (N, C, h, w) or (N, C), whose resized sum is the mean of probabilities. A member
        that fails is left out from then on where `on_loss` is given and another one is there.
        """
        batches: dict[int, Tensor] = {}
        done: list[tuple[float, Tensor]] = []
        took = []
        for number, views in plan.items():
            one, start = loaded[number], time.monotonic()
            try:
                if one.view not in batches:
                    batches[one.view] = to_batch(group, one.view, self.device)
                probs = self._forward(one, batches[one.view], one.member.tta[:views])
            except Exception as error:  # noqa: BLE001 - as above
                self._lose(one.member, error)
                del loaded[number]
                continue
            took.append(Took(number, views, time.monotonic() - start))
            done.append((one.member.weight, probs))
        if plan and not done and loaded:
            # Whoever is left takes the turn of those that failed.
            return self.run(loaded, group, {n: len(o.member.tta) for n, o in loaded.items()})
        whole = sum(weight for weight, _ in done)
        if any(loaded[number].member.mean == LOGITS for number in plan if number in loaded):
            maps = [probs.contiguous().cpu().numpy() for _, probs in done]
            return Means(maps, tuple(weight / whole for weight, _ in done)), took
        sums: dict[tuple[int, ...], Tensor] = {}
        for weight, probs in done:
            key = tuple(probs.shape[2:])
            part = probs.mul_(weight / whole)
            sums[key] = sums[key].add_(part) if key in sums else part
        return Means([total.contiguous().cpu().numpy() for total in sums.values()]), took

    def _forward(self, one: Loaded, batch: Tensor, tta: Sequence[str]) -> Tensor:
        """Run a member; a batch that is too large for the device's memory goes in halves."""
        try:
            probs = forward(one.modules, batch, one.member.predicts, tta, precision=self.precision)
            if probs.is_cuda:
                # What it took is only known when it is done.
                torch.cuda.synchronize(probs.device)
        except torch.OutOfMemoryError:
            if len(batch) == 1:
                raise
        else:
            return probs
        halves = batch.chunk(2)
        return torch.cat([self._forward(one, half, tta) for half in halves])

    def _lose(self, member: Member, error: Exception) -> None:
        """Go on without a member, or raise where the task needs it or nobody wants to hear."""
        self._alive[member.predicts] -= 1
        last = member.predicts == self._needed and not self._alive[member.predicts]
        if self._on_loss is None or last:
            raise error
        self._on_loss(member.name, error)


def _here(plan: Mapping[int, int], loaded: Mapping[int, Loaded]) -> dict[int, int]:
    """Return what of a plan can be run; where all that it names are lost, one of the others."""
    here = {number: views for number, views in plan.items() if views and number in loaded}
    return here or dict.fromkeys(list(loaded)[:1], 1)

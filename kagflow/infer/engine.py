"""Predict a test set: decode | forward | post-process, each in its own thread.

The gate's members see every image first; an image whose every class they veto never reaches the
segmenters. The other images go through all members, batch by batch, so that whatever is finished
is finished for good; a governor says how many of the members a batch can still have.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from torch import nn

from kagflow.infer.backend import Backend
from kagflow.infer.decode import Item, Sources, decode
from kagflow.infer.forward import forward
from kagflow.infer.governor import Governor, Plan
from kagflow.infer.image import resize_probs
from kagflow.infer.lane import Lane, Loaded, OnLoad, OnLoss, Took
from kagflow.infer.lanes import Lanes
from kagflow.infer.members import Member, load_member, members_from_config
from kagflow.infer.meter import DECODE, FINISH, Meter
from kagflow.infer.pipeline import Batcher, background
from kagflow.infer.postprocess import ClassRule, apply, apply_labels, mean_of, vetoed
from kagflow.task.rle import encode
from kagflow.task.spec import TaskSpec

__all__ = [
    "Member", "Prediction", "Probs", "Settings", "forward", "load_member", "members_from_config",
    "predict", "predict_probs",
]  # fmt: skip

Float = NDArray[np.float32]
OnFault = Callable[[str, str], None]


@dataclass(frozen=True)
class Settings:
    """Say how to run: where, how many images at a time, how precisely.

    `device` may name several, "cuda:0,cuda:1": each gets every other batch. `ahead` batches are
    decoded and finished ahead; `keep_probs` keeps what the rules saw. A `governor` decides which
    segmenters a batch gets, all of them without one; a `meter` takes what it all costs. A
    `backend` may choose another than torch to run a member on the CPU.
    `on_load(member, modules, device)` may raise. Where `on_loss(name, error)` is given, a member
    that fails is left out and told to it, unless no other can answer.
    """

    device: str = "cpu"
    batch: int = 8
    precision: str = "auto"
    ahead: int = 2
    keep_probs: bool = False
    governor: Governor | None = None
    meter: Meter | None = None
    backend: Backend | None = None
    on_load: OnLoad | None = None
    on_loss: OnLoss | None = None

    @property
    def devices(self) -> list[str]:
        """The devices one by one."""
        return self.device.split(",")


@dataclass(frozen=True)
class Prediction:
    """One image's answer: run lengths by class index ("" for labels), empty classes left out.

    `masks` (C, H, W) and `labels` (C,) are the probabilities, where they were asked for;
    `fault` says why an image could not be read (its rows are empty), `late` that there was no
    time left for it (they are empty, too).
    """

    image_id: str
    rows: dict[int, str]
    masks: Float | None = None
    labels: Float | None = None
    fault: str = ""
    late: bool = False


class Probs(NamedTuple):
    """One image's probabilities: (C, h, w) at working size, or (C,); `size` is the image's."""

    image_id: str
    probs: Float
    size: tuple[int, int]


def predict(
    members: Sequence[Member],
    rules: Sequence[ClassRule],
    spec: TaskSpec,
    files: Sources,
    *,
    settings: Settings | None = None,
    on_fault: OnFault | None = None,
) -> Iterator[Prediction]:
    """Yield one prediction an image, in the order in which they are finished.

    `files` are (image id, path or (H, W) uint8). An image that cannot be read gives empty rows
    and a call of `on_fault(image_id, what)`; every other error is raised.
    """
    ensemble = _Ensemble(members, rules, spec, settings or Settings())
    for prediction in ensemble.run(files):
        if prediction.fault and on_fault:
            on_fault(prediction.image_id, prediction.fault)
        yield prediction


def predict_probs(
    member: Member,
    modules: Sequence[nn.Module],
    files: Sources,
    *,
    settings: Settings | None = None,
    on_fault: OnFault | None = None,
) -> Iterator[Probs]:
    """Yield the probabilities of modules in memory: what `predict` sees, before any rule.

    The member says input, size and TTA; its weights are not read. Images come back in the order
    in which they are finished; an unreadable one is left out and told to `on_fault`.
    """
    settings = settings or Settings()
    for module in modules:
        module.eval()
    decoded = background(decode([member], files), ahead=settings.ahead * settings.batch)
    lane = Lane(settings.device, settings.precision)
    loaded, plan = {0: Loaded(member, modules, 0)}, {0: len(member.tta)}
    batcher = Batcher[Item](settings.batch)
    for item in _flushed(decoded):
        if item is not None and item.fault:
            if on_fault:
                on_fault(item.image_id, item.fault)
            continue
        for group in batcher.drain() if item is None else batcher.add(item.shapes, item):
            found, _ = lane.run(loaded, group, plan)
            for one, probs in zip(group, found.maps[0], strict=True):
                yield Probs(one.image_id, probs, one.size)


class _Ensemble:
    """The three stages that an image passes."""

    def __init__(
        self,
        members: Sequence[Member],
        rules: Sequence[ClassRule],
        spec: TaskSpec,
        settings: Settings,
    ) -> None:
        self.rules, self.spec, self.settings, self.members = rules, spec, settings, members
        self.governor = settings.governor
        self.needed = needed = "mask" if spec.kind == "segmentation" else "label"
        self.whole = Plan(tuple(len(one.tta) for one in members if one.predicts == needed))
        self.lanes = [
            Lane(
                device,
                settings.precision,
                needed=needed,
                backend=settings.backend,
                on_load=settings.on_load,
                on_loss=settings.on_loss,
            )
            for device in settings.devices
        ]
        for lane in self.lanes:
            lane.load(members, len(spec.classes))

    def run(self, files: Sources) -> Iterator[Prediction]:
        """Yield predictions; the stages run beside each other with bounded queues."""
        settings = self.settings
        ahead = settings.ahead * settings.batch
        height, width = self.spec.height, self.spec.width
        expected = (height, width) if height and width else None
        meter = settings.meter or Meter()
        read = meter.stage(DECODE, decode(self.members, files, expected))
        forwarded = background(self._forward(background(read, ahead=ahead)), ahead=ahead)
        return background(meter.stage(FINISH, map(self._finish, forwarded)), ahead=ahead)

    def _forward(self, decoded: Iterator[Item]) -> Iterator[Item]:
        """Pass items through the gates and, where a class is left, through the segmenters."""
        gate, segment = (Batcher[Item](self.settings.batch) for _ in range(2))
        with Lanes[Lane, list[Item]](self.lanes) as lanes:
            for item in _flushed(decoded):
                if item is not None and item.fault:
                    yield item
                    continue
                for group in gate.drain() if item is None else gate.add(item.shapes, item):
                    lanes.send(self._gated, group)
                yield from self._settled(lanes, segment, wait=item is None)
            for rest in segment.drain():
                lanes.send(self._segmented, rest)
            yield from self._settled(lanes, segment, wait=True)

    def _settled(
        self, lanes: Lanes[Lane, list[Item]], segment: Batcher[Item], *, wait: bool
    ) -> Iterator[Item]:
        """Yield the items that need no model any more; send the others to the segmenters."""
        for group in lanes.done(wait=wait):
            for item in group:
                if not item.views:
                    yield item
                    continue
                for full in segment.add(item.shapes, item):
                    lanes.send(self._segmented, full)

    def _gated(self, lane: Lane, group: list[Item]) -> list[Item]:
        governor = self.governor
        if governor is not None and governor.left <= 0:
            return _too_late(group)
        if self.spec.kind == "classification":
            return self._labelled(lane, group)
        seconds = None
        if governor is None or governor.gated():
            turns = lane.gate(group)
            seconds = sum(took.seconds for took in turns)
            self._meter("label", turns, group)
        for item in group:
            if not lane.segmenters or vetoed(item.labels, self.rules).all():
                item.views = []
        passed = sum(bool(item.views) for item in group)
        if governor is not None:
            governor.note_gate(images=len(group), passed=passed, seconds=seconds)
        if self.settings.meter is not None:
            self.settings.meter.gate(len(group), passed)
        return group

    def _labelled(self, lane: Lane, group: list[Item]) -> list[Item]:
        """Give a group the labels that are its answer."""
        if self.governor is not None:
            self.governor.note_gate(images=len(group), passed=len(group), seconds=None)
        plan = self._plan(group)
        if not any(plan):
            return _too_late(group)
        self._note(lane.gate(group, dict(enumerate(plan))), group)
        for item in group:
            item.views = []
        return group

    def _segmented(self, lane: Lane, group: list[Item]) -> list[Item]:
        plan = self._plan(group)
        if not any(plan):
            return _too_late(group)
        self._note(lane.segment(group, dict(enumerate(plan))), group)
        return group

    def _plan(self, group: list[Item]) -> Sequence[int]:
        plan = self.whole if self.governor is None else self.governor.choose(len(group))
        return plan.views

    def _note(self, turns: Sequence[Took], group: list[Item]) -> None:
        if self.governor is not None:
            for number, views, seconds in turns:
                self.governor.note(number, views=views, images=len(group), seconds=seconds)
        self._meter(self.needed, turns, group)

    def _meter(self, kind: str, turns: Sequence[Took], group: list[Item]) -> None:
        if self.settings.meter is not None:
            for number, views, seconds in turns:
                self.settings.meter.turn(
                    kind, number, views=views, images=len(group), seconds=seconds
                )

    def _finish(self, item: Item) -> Prediction:
        """Turn an item's probabilities into rows."""
        if self.governor is not None:
            self.governor.note_done(1)
        if item.fault or item.late:
            return Prediction(item.image_id, {}, fault=item.fault, late=item.late)
        kept = item.labels if self.settings.keep_probs else None
        if self.spec.kind == "classification":
            assert item.labels is not None
            found = apply_labels(item.labels, self.rules, exclusive=self.spec.exclusive)
            return Prediction(item.image_id, dict.fromkeys(found, ""), labels=kept)
        if not item.maps:
            return Prediction(item.image_id, {}, labels=kept)
        probs = mean_of([resize_probs(each, item.size) for each in item.maps], item.shares)
        masks = apply(probs, item.labels, self.rules)
        rows = {index: encode(mask) for index, mask in enumerate(masks) if mask.any()}
        return Prediction(
            item.image_id, rows, masks=probs if self.settings.keep_probs else None, labels=kept
        )


def _too_late(group: list[Item]) -> list[Item]:
    for item in group:
        item.late, item.views = True, []
    return group


def _flushed(items: Iterator[Item]) -> Iterator[Item | None]:
    """Add one None at the end: the time to send what is left."""
    yield from items
    yield None

"""Predict a test set: decode | forward | post-process, each in its own thread.

The gate's members see every image first; an image whose every class they veto never reaches the
segmenters. The other images go through all members, batch by batch, so that whatever is finished
is finished for good.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import reduce
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from kagflow.errors import DataError
from kagflow.infer.forward import forward
from kagflow.infer.image import INPUTS, read_grey, resize, resize_probs
from kagflow.infer.members import Member, load_member, members_from_config
from kagflow.infer.pipeline import Batcher, background
from kagflow.infer.postprocess import ClassRule, apply, apply_labels, vetoed
from kagflow.resolve import build
from kagflow.task.rle import encode
from kagflow.task.spec import TaskSpec

__all__ = [
    "Member", "Prediction", "Probs", "Settings", "forward", "load_member", "members_from_config",
    "predict", "predict_probs",
]  # fmt: skip

Float = NDArray[np.float32]
Sources = Iterable[tuple[str, Path | NDArray[np.uint8]]]
OnFault = Callable[[str, str], None]


@dataclass(frozen=True)
class Settings:
    """Say how to run: where, how many images at a time, how precisely.

    `ahead` batches are decoded and finished ahead; `keep_probs` keeps what the rules saw.
    """

    device: str = "cpu"
    batch: int = 8
    precision: str = "auto"
    ahead: int = 2
    keep_probs: bool = False


@dataclass(frozen=True)
class Prediction:
    """One image's answer: run lengths by class index ("" for labels), empty classes left out.

    `masks` (C, H, W) and `labels` (C,) are the probabilities, where they were asked for;
    `fault` says why an image could not be read (its rows are empty).
    """

    image_id: str
    rows: dict[int, str]
    masks: Float | None = None
    labels: Float | None = None
    fault: str = ""


class Probs(NamedTuple):
    """One image's probabilities: (C, h, w) at working size, or (C,); `size` is the image's."""

    image_id: str
    probs: Float
    size: tuple[int, int]


@dataclass
class _Item:
    """An image on its way: `views` are its inputs, then `maps` its weighted mask sums."""

    image_id: str
    size: tuple[int, int] = (0, 0)
    views: list[Float] = field(default_factory=list)
    labels: Float | None = None
    maps: list[Float] = field(default_factory=list)
    fault: str = ""

    @property
    def shapes(self) -> tuple[tuple[int, ...], ...]:
        return tuple(view.shape for view in self.views)


@dataclass(frozen=True)
class _Loaded:
    """A member with its modules; `view` is the index of its input among the item's views."""

    member: Member
    modules: Sequence[nn.Module]
    view: int


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
    decoded = background(_decode([member], files), ahead=settings.ahead * settings.batch)
    loaded = [_Loaded(member, modules, 0)]
    batcher = Batcher[_Item](settings.batch)
    for item in _flushed(decoded):
        if item is not None and item.fault:
            if on_fault:
                on_fault(item.image_id, item.fault)
            continue
        for group in batcher.drain() if item is None else batcher.add(item.shapes, item):
            (sums,) = _run(loaded, group, settings)
            for one, probs in zip(group, sums, strict=True):
                yield Probs(one.image_id, probs, one.size)


class _Ensemble:
    """Members on their device, and the three stages that an image passes."""

    def __init__(
        self,
        members: Sequence[Member],
        rules: Sequence[ClassRule],
        spec: TaskSpec,
        settings: Settings,
    ) -> None:
        self.rules, self.spec, self.settings = rules, spec, settings
        views = _views(members)
        loaded = []
        for member in members:
            modules = load_member(member, len(spec.classes), settings.device)
            loaded.append(_Loaded(member, modules, views.index(_view(member))))
        self.gates = [one for one in loaded if one.member.predicts == "label"]
        self.segmenters = [one for one in loaded if one.member.predicts == "mask"]
        self.members = members

    def run(self, files: Sources) -> Iterator[Prediction]:
        """Yield predictions; the stages run beside each other with bounded queues."""
        settings = self.settings
        ahead = settings.ahead * settings.batch
        decoded = background(_decode(self.members, files), ahead=ahead)
        forwarded = background(self._forward(decoded), ahead=ahead)
        return background(map(self._finish, forwarded), ahead=ahead)

    def _forward(self, decoded: Iterator[_Item]) -> Iterator[_Item]:
        """Pass items through the gates and, where a class is left, through the segmenters."""
        gate, segment = (Batcher[_Item](self.settings.batch) for _ in range(2))
        for item in _flushed(decoded):
            if item is not None and item.fault:
                yield item
                continue
            for group in gate.drain() if item is None else gate.add(item.shapes, item):
                for survivor in self._gated(group):
                    if vetoed(survivor.labels, self.rules).all() or not self.segmenters:
                        yield survivor
                        continue
                    for full in segment.add(survivor.shapes, survivor):
                        yield from self._segmented(full)
        for rest in segment.drain():
            yield from self._segmented(rest)

    def _gated(self, group: list[_Item]) -> list[_Item]:
        if self.gates:
            (sums,) = _run(self.gates, group, self.settings)
            for item, labels in zip(group, sums, strict=True):
                item.labels = labels
        return group

    def _segmented(self, group: list[_Item]) -> list[_Item]:
        sums = _run(self.segmenters, group, self.settings)
        for index, item in enumerate(group):
            item.maps = [total[index] for total in sums]
            item.views = []
        return group

    def _finish(self, item: _Item) -> Prediction:
        """Turn an item's probabilities into rows."""
        if item.fault:
            return Prediction(item.image_id, {}, fault=item.fault)
        kept = item.labels if self.settings.keep_probs else None
        if self.spec.kind == "classification":
            assert item.labels is not None
            found = apply_labels(item.labels, self.rules, exclusive=self.spec.exclusive)
            return Prediction(item.image_id, dict.fromkeys(found, ""), labels=kept)
        if not item.maps:
            return Prediction(item.image_id, {}, labels=kept)
        probs = reduce(np.add, (resize_probs(each, item.size) for each in item.maps))
        masks = apply(probs, item.labels, self.rules)
        rows = {index: encode(mask) for index, mask in enumerate(masks) if mask.any()}
        return Prediction(
            item.image_id, rows, masks=probs if self.settings.keep_probs else None, labels=kept
        )


def _view(member: Member) -> tuple[Any, ...]:
    """Key of what a member wants to see; members that agree share one input."""
    return (dict(member.input), member.size, dict(member.assets))


def _views(members: Sequence[Member]) -> list[tuple[Any, ...]]:
    found: list[tuple[Any, ...]] = []
    for member in members:
        if _view(member) not in found:
            found.append(_view(member))
    return found


def _decode(members: Sequence[Member], files: Sources) -> Iterator[_Item]:
    """Read each image once and make every distinct input of it."""
    views = [(build(spec, INPUTS), size, assets) for spec, size, assets in _views(members)]
    for image_id, source in files:
        try:
            image = read_grey(source) if isinstance(source, Path) else source
        except DataError as error:
            yield _Item(image_id, fault=error.message)
            continue
        facts = {"image_id": image_id, "height": image.shape[0], "width": image.shape[1]}
        inputs = [
            make(resize(image, size), facts | {"assets": assets}) for make, size, assets in views
        ]
        yield _Item(image_id, (image.shape[0], image.shape[1]), inputs)


def _flushed(items: Iterator[_Item]) -> Iterator[_Item | None]:
    """Add one None at the end: the time to send what is left."""
    yield from items
    yield None


@torch.inference_mode()
def _run(loaded: Sequence[_Loaded], group: Sequence[_Item], settings: Settings) -> list[Float]:
    """Return the members' weighted means for a group of items of equal shapes.

    Members of unequal working size cannot be added before they are resized: one array for each
    size, (N, C, h, w) or (N, C), whose resized sum is the mean.
    """
    whole = sum(one.member.weight for one in loaded)
    batches: dict[int, Tensor] = {}
    sums: dict[tuple[int, ...], Tensor] = {}
    for one in loaded:
        if one.view not in batches:
            stacked = torch.from_numpy(np.stack([item.views[one.view] for item in group]))
            batches[one.view] = stacked.to(settings.device, non_blocking=True)
        probs = forward(
            one.modules,
            batches[one.view],
            one.member.predicts,
            one.member.tta,
            precision=settings.precision,
        ).mul_(one.member.weight / whole)
        key = tuple(probs.shape[2:])
        sums[key] = sums[key].add_(probs) if key in sums else probs
    return [total.contiguous().cpu().numpy() for total in sums.values()]

"""Read each image once and make every distinct input of it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from kagflow.errors import DataError
from kagflow.infer.image import INPUTS, Affine, affine_of, read_grey, resize
from kagflow.infer.members import Member
from kagflow.resolve import build

Float = NDArray[np.float32]
Sources = Iterable[tuple[str, Path | NDArray[np.uint8]]]


@dataclass
class Item:
    """An image on its way: `views` are its inputs, then `maps` its weighted mask sums.

    A view whose input is affine is still the image's bytes, and `affines` says what they become on
    the device. Where logits are averaged, `maps` are the members' own and `shares` their weights.
    `fault` says why it could not be read; `late` that there was no time for it.
    """

    image_id: str
    size: tuple[int, int] = (0, 0)
    views: list[Float | NDArray[np.uint8]] = field(default_factory=list)
    affines: Sequence[Affine | None] = ()
    labels: Float | None = None
    maps: list[Float] = field(default_factory=list)
    shares: tuple[float, ...] = ()
    fault: str = ""
    late: bool = False

    @property
    def shapes(self) -> tuple[tuple[int, ...], ...]:
        """What images of one batch have in common."""
        return tuple(view.shape for view in self.views)


def view_of(member: Member) -> tuple[Any, ...]:
    """Return the key of what a member wants to see; members that agree share one input."""
    return (dict(member.input), member.size, dict(member.assets))


def distinct_views(members: Sequence[Member]) -> list[tuple[Any, ...]]:
    """Return the members' distinct keys in the order of their first use."""
    found: list[tuple[Any, ...]] = []
    for member in members:
        if view_of(member) not in found:
            found.append(view_of(member))
    return found


def decode(
    members: Sequence[Member], files: Sources, expected: tuple[int, int] | None = None
) -> Iterator[Item]:
    """Yield an item with its inputs for each of `files`, in order; the unreadable carry a fault.

    So does an image of another (height, width) than `expected`: what was trained on one size may
    well fail at another, and one odd image must not end a run.
    """
    views = [(build(spec, INPUTS), size, assets) for spec, size, assets in distinct_views(members)]
    affines = [affine_of(make) for make, _, _ in views]
    for image_id, source in files:
        try:
            image = read_grey(source) if isinstance(source, Path) else source
        except DataError as error:
            yield Item(image_id, fault=error.message)
            continue
        if expected is not None and image.shape != expected:
            height, width = image.shape
            what = f"{width}x{height} pixels where all others have {expected[1]}x{expected[0]}"
            yield Item(image_id, fault=what)
            continue
        facts = {"image_id": image_id, "height": image.shape[0], "width": image.shape[1]}
        inputs = [
            made if affine else make(made, facts | {"assets": assets})
            for (make, size, assets), affine in zip(views, affines, strict=True)
            for made in [resize(image, size)]
        ]
        yield Item(image_id, (image.shape[0], image.shape[1]), inputs, affines)


def to_batch(group: Sequence[Item], view: int, device: str | torch.device) -> Tensor:
    """Return one view of a group as (N, C, H, W) float32 on a device."""
    stacked = torch.from_numpy(np.stack([item.views[view] for item in group]))
    there, affine = stacked.to(device, non_blocking=True), group[0].affines[view]
    return there if affine is None else affine.on_device(there)

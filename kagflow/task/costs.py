"""What a run of the kernel took, stage by stage: measured there, read and compared elsewhere."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

# How a kernel's log tells it, in one line.
LINE = "kagflow-costs "


@dataclass(frozen=True)
class Turn:
    """Say what one member takes for an image that reaches it, in seconds.

    `key` names what decides that: model, input, size, folds, views. `gate` members see every
    image, the others what the gates let pass.
    """

    name: str
    key: str
    seconds: float
    gate: bool = False


@dataclass(frozen=True)
class Costs:
    """Hold seconds of one run on `machine`; those of stages are for an image.

    `lanes` devices shared the `members`. `decode` and `finish` are processor time before and
    behind the models, which run beside them; `rest` is wall time that the models do not account
    for. `parity` is what the stored answers took for `parity_images` of them, `total` everything
    from the container's start to the last of `images`.
    """

    machine: str
    lanes: int
    members: tuple[Turn, ...]
    gated: int
    passed: int
    decode: float
    finish: float
    rest: float
    parity: float
    parity_images: int
    images: int
    total: float

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Costs:
        """Read what `to_dict` wrote; raises KeyError, TypeError or ValueError for anything else."""
        members = tuple(Turn(**one) for one in values["members"])
        return cls(**{**values, "members": members})

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON values."""
        return asdict(self) | {"members": [asdict(one) for one in self.members]}

    @property
    def share(self) -> float:
        """The share of images that the gates let pass; 1 without gates."""
        return self.passed / self.gated if self.gated else 1.0

    @property
    def host(self) -> float:
        """Seconds an image of the slower of the two stages beside the models."""
        return max(self.decode, self.finish)

    def forward(
        self, share: float | None = None, scale: Mapping[str, float] | None = None
    ) -> float:
        """Return the models' seconds an image on one device, where `share` of images pass.

        `scale` multiplies members by key.
        """
        part = self.share if share is None else share
        return sum(
            (scale or {}).get(one.key, 1.0) * one.seconds * (1.0 if one.gate else part)
            for one in self.members
        )

    @property
    def each(self) -> float:
        """Seconds an image on the wall, once everything runs."""
        return max(self.forward() / self.lanes + self.rest, self.host)

    @property
    def setup(self) -> float:
        """Seconds that do not grow with the images, the stored answers not counted."""
        return max(self.total - self.images * self.each - self.parity, 0.0)


@dataclass(frozen=True)
class Pair:
    """Hold the same pack's costs on an accelerator of Kaggle and on this machine.

    `source` is kernel or probe, `subject` the kernel's version.
    """

    accelerator: str
    at: str
    source: str
    subject: str
    there: Costs
    here: Costs


def from_log(lines: Iterable[str]) -> dict[str, Any] | None:
    """Return the costs that a kernel's log tells of, as plain values; None where it tells none."""
    for line in lines:
        _, found, text = line.partition(LINE)
        if not found:
            continue
        try:
            return Costs.from_dict(json.loads(text)).to_dict()
        except (ValueError, KeyError, TypeError):
            continue
    return None

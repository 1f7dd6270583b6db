"""What passed through each step of a recipe: shapes, types, ranges, classes, over all samples."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch


@dataclass(frozen=True)
class Step:
    """One line of a look: what of an array or tensor is worth a line.

    `classes` counts the samples that show each class, by name, and those that show none under "".
    """

    name: str
    shape: str
    dtype: str
    low: float | None
    high: float | None
    classes: dict[str, int] = field(default_factory=dict)


class Ledger:
    """Collect arrays by step; the order of the steps is that of their first array."""

    def __init__(self, classes: Sequence[str]) -> None:
        self._classes = tuple(classes)
        self._seen: dict[str, list[_Seen]] = {}

    def add(self, name: str, array: Any, *, shown: Sequence[int] | None = None) -> None:
        """Note an array or tensor; `shown` are the classes that it shows, where it shows any."""
        self._seen.setdefault(name, []).append(_Seen.of(array, shown))

    def steps(self) -> tuple[Step, ...]:
        """Return a line for each step."""
        return tuple(self._step(name, seen) for name, seen in self._seen.items())

    def _step(self, name: str, seen: Sequence[_Seen]) -> Step:
        lows = [one.low for one in seen if one.low is not None]
        highs = [one.high for one in seen if one.high is not None]
        counted = Counter(c for one in seen for c in (one.shown or ()))
        classes = {self._name(at): count for at, count in sorted(counted.items())}
        if none := sum(one.shown == () for one in seen):
            classes[""] = none
        return Step(
            name,
            _shapes([one.shape for one in seen]),
            " or ".join(dict.fromkeys(one.dtype for one in seen)),
            min(lows, default=None),
            max(highs, default=None),
            classes,
        )

    def _name(self, at: int) -> str:
        return self._classes[at] if at < len(self._classes) else f"value {at + 1}"


@dataclass(frozen=True)
class _Seen:
    shape: tuple[int, ...]
    dtype: str
    low: float | None
    high: float | None
    shown: tuple[int, ...] | None

    @classmethod
    def of(cls, array: Any, shown: Sequence[int] | None) -> _Seen:
        low, high = extent(array)
        dtype = str(array.dtype).removeprefix("torch.")
        kept = None if shown is None else tuple(shown)
        return cls(tuple(array.shape), dtype, low, high, kept)


def extent(array: Any) -> tuple[float | None, float | None]:
    """Return the lowest and the highest value of an array or tensor, None for an empty one."""
    if isinstance(array, torch.Tensor):
        array = array.detach().float().cpu().numpy()
    return (float(array.min()), float(array.max())) if array.size else (None, None)


def describe(value: Any) -> str:
    """Write what went into a step: shape, type and range, or what else it is."""
    if isinstance(value, dict):
        return ", ".join(f"{name} {describe(one)}" for name, one in value.items())
    if not isinstance(value, np.ndarray | torch.Tensor):
        return f"a {type(value).__name__}"
    low, high = extent(value)
    span = "" if low is None else f" from {low:.4g} to {high:.4g}"
    return f"{tuple(value.shape)} {str(value.dtype).removeprefix('torch.')}{span}"


def _shapes(shapes: Sequence[tuple[int, ...]]) -> str:
    different = sorted(set(shapes))
    if len(different) == 1:
        return str(different[0])
    if len({len(shape) for shape in different}) > 1:
        return " or ".join(map(str, different))
    sides = (sorted(set(side)) for side in zip(*different, strict=True))
    spans = (f"{side[0]}" if len(side) == 1 else f"{side[0]}..{side[-1]}" for side in sides)
    return f"({', '.join(spans)})"

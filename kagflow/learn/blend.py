"""A mean of members: how often each counts, and whether probabilities or logits are averaged."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import gcd
from typing import Self

import numpy as np
from numpy.typing import NDArray

from kagflow.infer.postprocess import mean_of


@dataclass(frozen=True)
class Blend:
    """How many times each of M members counts, in lowest terms; not all are 0.

    With `logits` the mean is of log(p / (1 - p)), a geometric mean of the odds.
    """

    counts: tuple[int, ...]
    logits: bool = False

    def __post_init__(self) -> None:
        common = gcd(*self.counts)
        object.__setattr__(self, "counts", tuple(count // common for count in self.counts))

    @classmethod
    def of(cls, chosen: Sequence[int], members: int, *, logits: bool = False) -> Self:
        """Count the numbers of members in `chosen`."""
        counts = np.bincount(np.asarray(chosen, np.int64), minlength=members)
        return cls(tuple(int(count) for count in counts), logits)

    @property
    def members(self) -> tuple[int, ...]:
        """Numbers of the members that count at all."""
        return tuple(at for at, count in enumerate(self.counts) if count)

    @property
    def weights(self) -> tuple[float, ...]:
        """Shares of the members, which add up to 1."""
        return tuple(count / sum(self.counts) for count in self.counts)

    def without(self, member: int) -> Self:
        """Return the blend of the others."""
        left = tuple(0 if at == member else count for at, count in enumerate(self.counts))
        return type(self)(left, self.logits)

    def mean(self, probs: Sequence[NDArray[np.float32]]) -> NDArray[np.float32]:
        """Average one array a member, all of one shape, as the kernel does."""
        maps, shares = [probs[at] for at in self.members], [self.weights[at] for at in self.members]
        if self.logits:
            return mean_of(maps, shares)
        return mean_of([each * np.float32(share) for each, share in zip(maps, shares, strict=True)])

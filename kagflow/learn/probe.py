"""A glance at the validation images after each epoch, cheap enough to take every time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
from torch import nn

from kagflow.infer.engine import Member, Settings, predict_probs
from kagflow.learn.cache import Cache
from kagflow.learn.dataset import to_channels
from kagflow.learn.job import FoldData
from kagflow.learn.sampler import Labels
from kagflow.task import metric
from kagflow.task.score import score_counts
from kagflow.task.spec import TaskSpec

IMAGES = 32


@dataclass(frozen=True)
class Probe:
    """Score up to 32 validation images at working size, half of them with defects.

    The figures follow training; they are no estimate of the score.
    """

    cache: Cache
    rows: npt.NDArray[np.int64]
    labels: Labels
    member: Member
    spec: TaskSpec
    device: str

    @classmethod
    def choose(cls, data: FoldData, member: Member, spec: TaskSpec, device: str) -> Probe:
        """Take the first validation images with and without a defect."""
        rows = data.validation
        defect = data.labels[rows].any(axis=1)
        clean = rows[~defect][: max(IMAGES // 2, IMAGES - int(defect.sum()))]
        chosen = np.concatenate([rows[defect][: IMAGES - len(clean)], clean])
        # One view is enough for a glance.
        one = replace(member, tta=("none",))
        return cls(data.cache, chosen, data.labels, one, spec, device)

    def look(self, model: nn.Module) -> dict[str, Any]:
        """Return `val_score`, `val_dice` and, where something is not empty, `val_nonempty`.

        `val_dice` lists each class's Dice over the pixels (labels: the images) of all that was
        looked at, None where it is neither true nor predicted.
        """
        at = {self.cache.ids[row]: int(row) for row in self.rows}
        files = [(name, self.cache.image(row)) for name, row in at.items()]
        settings = Settings(device=self.device)
        counts = [
            self._count(at[found.image_id], found.probs >= 0.5)
            for found in predict_probs(self.member, [model], files, settings=settings)
        ]
        stacked = np.array(counts).transpose(1, 0, 2)
        score = score_counts(metric.load(self.spec), *stacked)
        values = {"val_score": score.value, "val_dice": _pooled(*stacked.sum(axis=1).tolist())}
        return values if score.nonempty is None else values | {"val_nonempty": score.nonempty}

    def _count(self, row: int, predicted: npt.NDArray[np.bool_]) -> npt.NDArray[np.int64]:
        true = self.labels[row]
        if self.member.predicts == "mask":
            true = to_channels(self.cache.mask(row), self.cache.classes).astype(bool)
        axes = tuple(range(1, true.ndim))
        stack = (predicted & true, predicted, true)
        return np.array([each.sum(axis=axes, dtype=np.int64) for each in stack])


def _pooled(
    both: Sequence[int], predicted: Sequence[int], true: Sequence[int]
) -> list[float | None]:
    sums = zip(both, predicted, true, strict=True)
    return [2 * one / (seen + there) if seen + there else None for one, seen, there in sums]

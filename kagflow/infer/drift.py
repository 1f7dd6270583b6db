"""What half precision costs: the weights as they ship beside those that were trained.

Out of fold, on few images: enough to see that rounding is harmless, or that it is not.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kagflow.infer.engine import Settings, predict_probs
from kagflow.infer.export import load_weights
from kagflow.infer.image import resize_probs
from kagflow.infer.members import Member
from kagflow.infer.models import build_model, channels_last
from kagflow.infer.postprocess import ClassRule, apply, apply_labels
from kagflow.progress import QUIET, Progress
from kagflow.task import metric, rle
from kagflow.task.spec import TaskSpec

Float = NDArray[np.float32]


@dataclass(frozen=True)
class Shown:
    """An image (H, W) uint8 and its truth: {class index: run lengths}."""

    image_id: str
    image: NDArray[np.uint8]
    truth: Mapping[int, str]


@dataclass(frozen=True)
class Drift:
    """How far shipped weights are from the trained ones, over some images.

    `mean` and `largest` differences of a probability; `flipped` is the share of pixels (of labels,
    for an image-level member) that the rules decide otherwise; `full` and `shipped` are the
    competition's metric of the member alone, None for a gate, which the metric says nothing of.
    """

    images: int
    mean: float
    largest: float
    flipped: float
    full: float | None
    shipped: float | None

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON values."""
        return asdict(self)


def measure(
    member: Member,
    files: tuple[Path, Path],
    images: Sequence[Shown],
    rules: Sequence[ClassRule],
    spec: TaskSpec,
    *,
    progress: Progress = QUIET,
) -> Drift:
    """Compare `files`, the weights as trained and as exported, on images; one view, on the CPU.

    Raises DataError where a file is damaged or belongs to another model.
    """
    alone = replace(member, weights=files[:1], tta=("none",))
    sources = [(one.image_id, one.image) for one in images]
    answers = []
    # One at a time, so that both come back in the order of the images.
    settings = Settings(device="cpu", precision="fp32", batch=1)
    for file in files:
        model = build_model(member.model, classes=len(spec.classes))
        load_weights(model, file)
        modules = [channels_last(model, "cpu")]
        answers.append(predict_probs(alone, modules, sources, settings=settings))
    judge = _Judge(member.predicts, rules, spec)
    each = []
    for full, shipped, shown in zip(*answers, images, strict=True):
        each.append(judge.compare(full.probs, shipped.probs, shown))
        progress.advance()
    return judge.sum_up(each)


def joined(drifts: Sequence[Drift]) -> Drift:
    """Return the drift of several files of weights, each image counted once."""
    images = sum(one.images for one in drifts)

    def mean(name: str) -> float | None:
        values = [(getattr(one, name), one.images) for one in drifts]
        if not images or any(value is None for value, _ in values):
            return None
        return float(sum(value * count for value, count in values) / images)

    largest = max((one.largest for one in drifts), default=0.0)
    usual, flipped = mean("mean") or 0.0, mean("flipped") or 0.0
    return Drift(images, usual, largest, flipped, mean("full"), mean("shipped"))


@dataclass(frozen=True)
class _Compared:
    mean: float
    largest: float
    flipped: float
    # (2, 3, C): of the full and the shipped weights, pixels in both, predicted, and true.
    counts: NDArray[np.int64]


@dataclass(frozen=True)
class _Judge:
    predicts: str
    rules: Sequence[ClassRule]
    spec: TaskSpec

    def compare(self, full: Float, shipped: Float, shown: Shown) -> _Compared:
        apart = np.abs(full - shipped)
        one, other = (self._decide(probs, shown.image.shape) for probs in (full, shipped))
        truth = _truth(shown, one)
        counts = np.stack([_counts(one, truth), _counts(other, truth)])
        flipped = float((one != other).mean())
        return _Compared(float(apart.mean()), float(apart.max(initial=0.0)), flipped, counts)

    def sum_up(self, each: Sequence[_Compared]) -> Drift:
        full, shipped = self._scores(each)
        return Drift(
            images=len(each),
            mean=float(np.mean([one.mean for one in each])) if each else 0.0,
            largest=max((one.largest for one in each), default=0.0),
            flipped=float(np.mean([one.flipped for one in each])) if each else 0.0,
            full=full,
            shipped=shipped,
        )

    def _decide(self, probs: Float, size: Sequence[int]) -> NDArray[np.bool_]:
        """Return what the rules make of probabilities: masks (C, H, W) or labels (C,) bool."""
        if self.predicts == "mask":
            return apply(resize_probs(probs, (size[0], size[1])), None, self.rules)
        if self.spec.kind == "segmentation":
            # A gate decides where the rules have it decide, in the middle where they do not.
            return np.asarray(
                probs >= np.array([rule.gate or 0.5 for rule in self.rules], np.float32)
            )
        chosen = apply_labels(probs, self.rules, exclusive=self.spec.exclusive)
        return np.isin(np.arange(len(probs)), chosen)

    def _scores(self, each: Sequence[_Compared]) -> tuple[float | None, float | None]:
        needed = "mask" if self.spec.kind == "segmentation" else "label"
        if self.predicts != needed or not each:
            return None, None
        score, counts = metric.load(self.spec), np.stack([one.counts for one in each])
        full, shipped = (float(np.mean(score(*counts[:, at].swapaxes(0, 1)))) for at in range(2))
        return full, shipped


def _truth(shown: Shown, like: NDArray[np.bool_]) -> NDArray[np.bool_]:
    truth = np.zeros(like.shape, bool)
    for index, runs in shown.truth.items():
        truth[index] = rle.decode(runs, *like.shape[1:]) > 0 if like.ndim == 3 else True
    return truth


def _counts(decided: NDArray[np.bool_], truth: NDArray[np.bool_]) -> NDArray[np.int64]:
    sums = (each.reshape(len(each), -1).sum(1) for each in (decided & truth, decided, truth))
    return np.stack(list(sums))

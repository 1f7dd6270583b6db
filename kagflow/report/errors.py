"""What each (image, class) costs, what kind of error it is, and which images are worth seeing."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from kagflow.learn.perimage import PerImage

MISSED, HALLUCINATED, POOR, FAIR, GOOD, CLEAN = (
    "missed", "hallucinated", "poor", "fair", "good", "clean",
)  # fmt: skip
KINDS = {
    MISSED: "something is there, nothing is predicted",
    HALLUCINATED: "nothing is there, something is predicted",
    POOR: "both, and the score is below .5",
    FAIR: "both, and the score is from .5 to .8",
    GOOD: "both, and the score is .8 or more",
    CLEAN: "nothing is there, nothing is predicted",
}
MEDIANS = 0.1  # the share of the gallery that shows what is ordinary


@dataclass(frozen=True)
class Cost:
    """Count one kind of error of one class: how often, and what it takes off the score."""

    kind: str
    count: int
    points: float


def losses(result: PerImage) -> NDArray[np.float64]:
    """Return what each image and class takes off the score: (N, C), the sum is 1 - score.

    A metric that judges an image as a whole is shared by the classes that are wrong.
    """
    lost = (1 - result.scores) / result.scores.size
    if lost.shape[1] == result.true.shape[1]:
        return np.asarray(lost, np.float64)
    wrong = (result.predicted != result.intersection) | (result.true != result.intersection)
    share = wrong / np.maximum(wrong.sum(axis=1, keepdims=True), 1)
    return np.asarray(lost * share, np.float64)


def kinds(result: PerImage) -> NDArray[np.str_]:
    """Return the kind of each image and class: (N, C)."""
    there, said = result.true > 0, result.predicted > 0
    below = result.predicted + result.true
    score = np.divide(2 * result.intersection, below, out=np.ones(below.shape), where=below > 0)
    if result.scores.shape == score.shape:
        score = result.scores
    both = np.where(score < 0.5, POOR, np.where(score < 0.8, FAIR, GOOD))
    one = np.where(there, MISSED, HALLUCINATED)
    return np.where(there & said, both, np.where(there | said, one, CLEAN))


def costs(result: PerImage) -> list[list[Cost]]:
    """Return for each class what its kinds of error cost, in the order of KINDS."""
    lost, named = losses(result), kinds(result)
    return [
        [
            Cost(kind, int((named[:, c] == kind).sum()), float(lost[named[:, c] == kind, c].sum()))
            for kind in KINDS
        ]
        for c in range(len(result.classes))
    ]


def choose(result: PerImage, limit: int) -> dict[str, tuple[str, ...]]:
    """Return {image id: why it is shown} of at most `limit` images, costliest first.

    Why: worst (by loss), median (around the median score of what is not empty), missed,
    hallucinated. Each has its turn, so that none is crowded out; what room is left goes by loss.
    """
    lost, named = losses(result), kinds(result)
    by_loss = [int(at) for at in np.argsort(-lost.sum(axis=1), kind="stable")]
    wrong = [at for at in by_loss if lost[at].sum() > 0]
    ranked = {
        "worst": wrong[: max(limit // 3, 1)],
        MISSED: _ranked(lost, named == MISSED),
        HALLUCINATED: _ranked(lost, named == HALLUCINATED),
    }
    why: dict[int, list[str]] = {at: ["median"] for at in _middle(result, round(limit * MEDIANS))}
    for reason, at in _in_turn(ranked):
        if at in why or len(why) < limit:
            why.setdefault(at, []).append(reason)
    for at in by_loss[:limit]:
        if len(why) < limit:
            why.setdefault(at, [])
    order = sorted(why, key=lambda at: (-lost[at].sum(), result.image_ids[at]))
    return {result.image_ids[at]: tuple(why[at]) for at in order}


def _ranked(lost: NDArray[np.float64], mask: NDArray[np.bool_]) -> list[int]:
    sums = np.where(mask, lost, 0).sum(axis=1)
    return [int(at) for at in np.argsort(-sums, kind="stable") if mask[at].any()]


def _in_turn(ranked: Mapping[str, list[int]]) -> Iterator[tuple[str, int]]:
    for place in range(max(map(len, ranked.values()))):
        for reason, order in ranked.items():
            if place < len(order):
                yield reason, int(order[place])


def _middle(result: PerImage, many: int) -> list[int]:
    """Return the images nearest to the median score of those that are not empty."""
    shown = np.flatnonzero((result.true > 0).any(axis=1))
    if not len(shown):
        return []
    scores = result.image_scores[shown]
    order = np.argsort(np.abs(scores - np.median(scores)), kind="stable")
    return [int(at) for at in shown[order][:many]]

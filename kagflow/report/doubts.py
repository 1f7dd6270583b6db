"""Where the labels may be wrong: models that did not see an image contradict its label strongly."""

from __future__ import annotations

import os
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial

import numpy as np

from kagflow.learn.perimage import PerImage
from kagflow.progress import QUIET, Progress
from kagflow.report import errors
from kagflow.report.judge import Judge
from kagflow.task import rle

LOOKED_AT = 120
SURE = 0.8


@dataclass(frozen=True)
class Doubt:
    """One label that may be wrong; `sure` is from 0 to 1, `agree` of `of` models are against it.

    `pixels` are those that the label lacks or has too many, 0 for image-level labels.
    """

    image_id: str
    label: str
    kind: str
    sure: float
    agree: int
    of: int
    pixels: int


@dataclass(frozen=True)
class Twins:
    """Near-duplicate images whose labels name different classes."""

    cluster: int
    images: tuple[tuple[str, str], ...]


def find_doubts(
    judge: Judge,
    result: PerImage,
    truth: Mapping[str, Mapping[int, str]],
    *,
    progress: Progress | None = None,
) -> list[Doubt]:
    """List the missed and hallucinated masks that most models are sure of, surest first.

    A hallucinated mask's sureness is the mean probability inside it; a missed one's is one less
    the 95th percentile of the probability inside the label. Image-level labels give none.
    """
    if judge.spec.kind != "segmentation":
        return []
    wrong = _worst(result)
    progress = progress or QUIET
    progress.start("look for label noise", len(wrong), "masks")
    found = []
    with ThreadPoolExecutor(os.cpu_count() or 1) as pool:
        for one in pool.map(partial(_doubt, judge, truth), wrong):
            if one is not None and one.sure >= SURE and 2 * one.agree > one.of:
                found.append(one)
            progress.advance()
    progress.finish()
    return sorted(found, key=lambda one: (-one.sure, one.image_id, one.label))


def find_twins(result: PerImage, shown: int = 50) -> list[Twins]:
    """List the clusters of near-duplicates whose labels name different classes."""
    clusters: dict[int, list[int]] = {}
    for at, cluster in enumerate(result.clusters.tolist()):
        clusters.setdefault(cluster, []).append(at)
    found = []
    for cluster, rows in clusters.items():
        said = [_classes(result, at) for at in rows]
        if len(set(said)) > 1:
            ids = [result.image_ids[at] for at in rows]
            found.append(Twins(cluster, tuple(zip(ids, said, strict=True))))
    return found[:shown]


def _classes(result: PerImage, at: int) -> str:
    named = [label for c, label in enumerate(result.classes) if result.true[at, c]]
    return " ".join(named) or "clean"


def _worst(result: PerImage) -> list[tuple[str, int, str]]:
    lost, named = errors.losses(result), errors.kinds(result)
    found: list[tuple[str, int, str]] = []
    for kind in (errors.MISSED, errors.HALLUCINATED):
        rows, columns = np.nonzero(named == kind)
        area = np.maximum(result.true, result.predicted)[rows, columns]
        order = np.lexsort((-area, -lost[rows, columns]))[: LOOKED_AT // 2]
        found += [(result.image_ids[rows[at]], int(columns[at]), kind) for at in order]
    return found


def _doubt(
    judge: Judge, truth: Mapping[str, Mapping[int, str]], where: tuple[str, int, str]
) -> Doubt | None:
    image_id, c, kind = where
    seen = judge.look(image_id)
    if seen.masks is None or seen.probs is None:
        return None
    probs, rule = seen.probs[c], judge.rules[c]
    if kind == errors.MISSED:
        region = rle.decode(truth.get(image_id, {}).get(c, ""), *probs.shape) > 0
    else:
        region = seen.masks[c]
    if not region.any():
        return None
    inside = probs[region]
    missed = kind == errors.MISSED
    sure = 1 - float(np.quantile(inside, 0.95)) if missed else float(inside.mean())
    alone = [each[c][region] >= np.float32(rule.threshold) for each in judge.each_mask(image_id)]
    agree = sum(bool((one.mean() < 0.05) if missed else (one.mean() > 0.5)) for one in alone)
    return Doubt(image_id, judge.spec.classes[c], kind, sure, agree, len(alone), int(region.sum()))

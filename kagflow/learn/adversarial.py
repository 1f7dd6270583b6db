"""Adversarial validation: can a plain model tell the public test's images from those of training?

Where it can, the test is another place than the one where the out-of-fold scores were earned, and
their ranking need not hold there.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from kagflow import durable
from kagflow.errors import DataError
from kagflow.learn.adversarial_features import NAMES, describe_file
from kagflow.learn.cache import data_hash
from kagflow.progress import QUIET, Progress
from kagflow.task.folds import make_clusters
from kagflow.task.index import ImageRow, image_files
from kagflow.task.spec import TaskSpec

SCHEMA = 1
Float = NDArray[np.float64]
# Above it, the order of out-of-fold scores is not to be trusted alone.
TRUSTED_AUC = 0.7
# Fewer images of a side say nothing; more than MOST of a side say it no better.
FEWEST, MOST = 20, 2000
PARTS = 5
_RIDGE = 1e-3
# Standardised features beyond it are as far away as this.
_FAR = 4.0
_TOLD = 3
_EPS = 1e-6


@dataclass(frozen=True)
class Likeness:
    """Hold how well training and test images are told apart: `auc` .5 is not at all, 1 wholly.

    `features` differ most: test minus training, in standard deviations of all images.
    """

    auc: float
    train: int
    test: int
    features: tuple[tuple[str, float], ...]

    @property
    def trusted(self) -> bool:
        """Tell whether the images are alike enough for out-of-fold ranks to hold."""
        return self.auc <= TRUSTED_AUC


def compare(
    data: Path, spec: TaskSpec, *, cache: Path, progress: Progress = QUIET
) -> Likeness | str:
    """Compare training with public test images; the answer is kept in `cache` by the data's hash.

    Returns why it cannot be asked where a side has too few images.
    """
    key = json.dumps([SCHEMA, data_hash(data), spec.train_images, spec.test_images, MOST])
    file = cache / f"{hashlib.sha256(key.encode()).hexdigest()[:16]}.json"
    if file.is_file():
        kept = json.loads(file.read_text())
        features = tuple((str(name), float(size)) for name, size in kept.pop("features"))
        return Likeness(**kept, features=features)
    try:
        sides = [_sample(data / folder) for folder in (spec.train_images, spec.test_images)]
    except DataError:
        return "there are no test images to look at"
    if min(map(len, sides)) < FEWEST:
        return f"{len(sides[1])} test images are too few to compare with {len(sides[0])}"
    found = tell_apart(*_look(sides, progress))
    durable.write_json(file, asdict(found))
    return found


def tell_apart(rows: Sequence[ImageRow], features: Float, test: NDArray[np.bool_]) -> Likeness:
    """Return how well a model tells images apart that it was not fitted on.

    Logistic regression on standardised features (N, F) and their squares; near-duplicates are
    never on both sides of a fit. The AUC is the mean over parts. Scikit-learn's boosted trees were
    no better on tiles and steel with changed light or noise, and would cost 60 MB.
    """
    clusters = np.array(make_clusters(rows, limit=max(len(rows) // (2 * PARTS), 1)))
    part = np.random.default_rng(0).permutation(clusters.max() + 1)[clusters] % PARTS
    found = []
    for number in range(PARTS):
        outside = part == number
        if len(set(test[outside].tolist())) < 2 or len(set(test[~outside].tolist())) < 2:
            continue
        odds = _fit_predict(features[~outside], test[~outside], features[outside])
        found.append(auc(test[outside], odds))
    away = features[test].mean(axis=0) - features[~test].mean(axis=0)
    away = away / (features.std(axis=0) + _EPS)
    most = np.argsort(-np.abs(away))[:_TOLD]
    told = tuple((NAMES[at], round(float(away[at]), 2)) for at in most)
    return Likeness(float(np.mean(found)), int((~test).sum()), int(test.sum()), told)


def auc(positive: NDArray[np.bool_], score: Float) -> float:
    """Return the chance that a positive has the higher score, ties shared (Mann-Whitney)."""
    # Not at the top: advice without images needs no statistics.
    from scipy.stats import rankdata

    ranks, count = rankdata(score), int(positive.sum())
    above = ranks[positive].sum() - count * (count + 1) / 2
    return float(above / (count * (len(positive) - count)))


def _sample(folder: Path) -> list[Path]:
    files = image_files(folder)
    if len(files) <= MOST:
        return files
    chosen = np.random.default_rng(0).choice(len(files), MOST, replace=False)
    return [files[at] for at in sorted(chosen.tolist())]


def _look(
    sides: Sequence[Sequence[Path]], progress: Progress
) -> tuple[list[ImageRow], Float, NDArray[np.bool_]]:
    files = [file for side in sides for file in side]
    rows, features = [], []
    progress.start("compare training and test images", len(files), "images")
    with ThreadPoolExecutor(os.cpu_count() or 1) as pool:
        for row, found in pool.map(describe_file, files):
            rows.append(row)
            features.append(found)
            progress.advance()
    progress.finish()
    return rows, np.array(features), np.repeat([False, True], [len(side) for side in sides])


def _fit_predict(known: Float, test: NDArray[np.bool_], asked: Float) -> Float:
    center, scale = known.mean(axis=0), known.std(axis=0) + _EPS
    weights = _fit(_bend((known - center) / scale), test)
    return np.asarray(_bend((asked - center) / scale) @ weights[1:] + weights[0])


def _bend(standard: Float) -> Float:
    near = np.clip(standard, -_FAR, _FAR)
    return np.concatenate([near, near**2], axis=1)


def _fit(features: Float, test: NDArray[np.bool_]) -> Float:
    from scipy.optimize import minimize
    from scipy.special import expit

    # Each side weighs half, however many images it has.
    share = np.where(test, 0.5 / test.sum(), 0.5 / (~test).sum())

    def loss(weights: Float) -> tuple[float, Float]:
        odds = features @ weights[1:] + weights[0]
        wrong = share * (expit(odds) - test)
        fit = share @ np.logaddexp(0, np.where(test, -odds, odds))
        value = fit + _RIDGE / 2 * (weights[1:] @ weights[1:])
        slope = np.concatenate([[wrong.sum()], features.T @ wrong + _RIDGE * weights[1:]])
        return float(value), slope

    start = np.zeros(features.shape[1] + 1)
    return np.asarray(minimize(loss, start, jac=True, method="L-BFGS-B").x)

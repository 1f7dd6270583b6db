"""Split images into folds: near-duplicates stay together, every class is spread evenly."""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING

import numpy as np

from kagflow.errors import DataError, UsageError
from kagflow.task.table import read_table, write_table

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from kagflow.task.index import ImageRow
    from kagflow.task.spec import TaskSpec

Folds = dict[str, tuple[int, int]]
HEADER = ("image_id", "cluster", "fold")
# Hash bits in which near-duplicates may differ.
_BITS = 4
# Images that may always share a group, however small the data set.
_SMALL = 32
# Rows of the distance matrix made at once: 512 x 12,568 hashes are 50 MB.
_BLOCK = 512


def make_folds(
    rows: Iterable[ImageRow],
    labels: Mapping[str, Mapping[int, str]],
    spec: TaskSpec,
    *,
    k: int,
    seed: int,
) -> Folds:
    """Return {image id: (cluster, fold)}; a cluster lies in one fold, folds count from 0.

    Clusters are placed greedily, those with the rarest class first, where the squared shortfall
    of classes, clean images and size falls most. The same seed gives the same folds whatever the
    order of the rows. Raises UsageError where k does not fit and DataError where a label names
    an image that is not there.
    """
    ordered = sorted(rows, key=lambda row: row.image_id)
    names = [row.image_id for row in ordered]
    strangers = sorted(set(labels) - set(names))
    if strangers:
        raise DataError(
            f"{len(strangers)} labelled images are not there, the first is {strangers[0]}",
            hint="Fetch the competition again.",
        )
    clusters = make_clusters(ordered, limit=largest_group(len(names), k))
    count = len(set(clusters))
    if not 2 <= k <= count:
        raise UsageError(
            f"{k} folds of {len(names)} images in {count} groups of near-duplicates",
            hint=f"Set folds: in competition.yaml to a number from 2 to {max(count, 2)}.",
        )
    weights = np.zeros((count, len(spec.classes) + 2))
    for name, cluster in zip(names, clusters, strict=True):
        found = list(labels.get(name, {}))
        weights[cluster, [*found, -1]] += 1
        weights[cluster, -2] += not found
    folds = _place(weights, k, seed)
    return {
        name: (cluster, int(folds[cluster])) for name, cluster in zip(names, clusters, strict=True)
    }


def largest_group(images: int, k: int) -> int:
    """Return how many images may share a group: half of what a fold of k holds."""
    return max(images // (2 * max(k, 1)), _SMALL)


def make_clusters(rows: Sequence[ImageRow], *, limit: int) -> list[int]:
    """Number the groups of near-duplicates: same size, and hashes linked by at most 4 bits.

    Links form chains; a group of more than `limit` images is taken apart again with fewer bits,
    so that images of little texture do not all become one. Equal hashes always stay together.
    """
    sizes: dict[tuple[int, int], list[int]] = defaultdict(list)
    for at, row in enumerate(rows):
        sizes[row.height, row.width].append(at)
    hashes = np.array([row.phash for row in rows], np.uint64)
    todo = [(members, _BITS) for members in sizes.values()]
    groups: list[list[int]] = []
    while todo:
        members, bits = todo.pop()
        for group in _linked(hashes, members, bits):
            if len(group) > limit and bits:
                todo.append((group, bits - 1))
            else:
                groups.append(group)
    numbers = [0] * len(rows)
    for number, group in enumerate(sorted(groups)):
        for at in group:
            numbers[at] = number
    return numbers


def write_folds(path: Path, folds: Mapping[str, tuple[int, int]]) -> None:
    """Write folds as CSV image_id,cluster,fold, sorted by image."""
    write_table(path, HEADER, ((name, *folds[name]) for name in sorted(folds)))


def read_folds(path: Path) -> Folds:
    """Read what `write_folds` wrote; raises DataError on a bad cell."""
    table = read_table(path)
    columns = zip(*(table.column(name) for name in HEADER), strict=True)
    try:
        return {name: (int(cluster), int(fold)) for name, cluster, fold in columns}
    except ValueError as fault:
        raise DataError(f"{path}: {fault}", hint="Fetch the competition again.") from None


def _linked(hashes: NDArray[np.uint64], members: list[int], bits: int) -> list[list[int]]:
    """Return the connected groups of members whose hashes differ by at most `bits`."""
    unique, which = np.unique(hashes[members], return_inverse=True)
    parent = list(range(len(unique)))
    for start in range(0, len(unique), _BLOCK):
        block = unique[start : start + _BLOCK, None]
        near = np.bitwise_count(block ^ unique[None, start:]) <= bits
        for first, second in np.argwhere(near).tolist():
            if first < second:
                _join(parent, start + first, start + second)
    groups: dict[int, list[int]] = defaultdict(list)
    for member, at in zip(members, which.tolist(), strict=True):
        groups[_root(parent, at)].append(member)
    return [sorted(group) for group in groups.values()]


def _root(parent: list[int], at: int) -> int:
    while parent[at] != at:
        parent[at] = parent[parent[at]]
        at = parent[at]
    return at


def _join(parent: list[int], first: int, second: int) -> None:
    parent[_root(parent, second)] = _root(parent, first)


def _place(weights: NDArray[np.float64], k: int, seed: int) -> NDArray[np.int64]:
    """Return the fold of each cluster from its counts (clusters, classes + clean + size)."""
    total = weights.sum(axis=0)
    rarity = np.where(weights > 0, total, np.inf)[:, :-2].min(axis=1)
    shuffled = np.random.default_rng(seed).permutation(len(weights))
    order = shuffled[np.lexsort((-weights[shuffled, -1], rarity[shuffled]))]
    # Shares of each column, so that a rare class weighs as much as a common one.
    share = weights / np.maximum(total, 1)
    missing = np.full((k, weights.shape[1]), 1 / k) * (total > 0)
    folds = np.zeros(len(weights), np.int64)
    for cluster in order:
        gain = (share[cluster] * (2 * missing - share[cluster])).sum(axis=1)
        folds[cluster] = int(np.argmax(gain))
        missing[folds[cluster]] -= share[cluster]
    return folds

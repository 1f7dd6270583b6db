"""Draw more often what a finished run got wrong, as far as this fold may know it."""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from kagflow import durable
from kagflow.errors import UsageError
from kagflow.learn.cache import decode_mask
from kagflow.learn.dataset import to_channels
from kagflow.learn.oof import OofReader
from kagflow.learn.past import Past
from kagflow.learn.sampler import Balanced, Labels, Weights

FILE = "hard.csv"
HEADER = ("image_id", "false_share", "missed_share")
# A defect counts as missed where less than this of it is found.
FOUND = 0.1


@dataclass(frozen=True)
class Wrong:
    """What a run got wrong on an image, at threshold .5, as shares of its pixels.

    `false` is what it saw of classes that are not there; `missed` the classes that are there of
    which it found less than a tenth. Labels count by their probability, 0 to 1.
    """

    false: float = 0.0
    missed: float = 0.0


class Hard(Balanced):
    """Draw as `balanced` does, images that `run` got wrong `weight` times as often.

    These are its false alarms of the largest area and its missed defects, of either at most `cap`
    of the training images. Only predictions out of fold count, and none of an image that this fold
    holds out; the models that made them did train on those, but all that passes on is which images
    to draw more often. The list is kept in hard.csv of the run's folder.
    """

    def __init__(  # noqa: PLR0913 - a recipe's words
        self,
        *,
        past: Past,
        run: str,
        weight: float = 2.0,
        cap: float = 0.1,
        start: float = 0.8,
        end: float = 0.4,
        threshold: float = 0.1,
        centred: float = 0.5,
        natural: float = 0.0,
    ) -> None:
        super().__init__(
            start=start, end=end, threshold=threshold, centred=centred, natural=natural
        )
        if weight < 1 or not 0 <= cap <= 1:
            raise UsageError(
                f"weight={weight}, cap={cap}", hint="weight is 1 or above, cap a share from 0 to 1"
            )
        wrong = _kept(past) or _work_out(past, run, cap)
        self._factors = np.array([weight if name in wrong else 1.0 for name in past.ids])

    def weights(self, labels: Labels) -> Weights:
        """Return `(N,)`: the repeat factor, times `weight` where an image is hard."""
        return np.asarray(super().weights(labels) * self._factors)


def hardest(wrong: Mapping[str, Wrong], most: int) -> dict[str, Wrong]:
    """Return the `most` worst false alarms and the `most` worst misses, by image."""
    chosen: set[str] = set()
    for kind in ("false", "missed"):
        order = sorted(wrong, key=lambda name: (-getattr(wrong[name], kind), name))
        chosen |= {name for name in order[:most] if getattr(wrong[name], kind) > 0}
    return {name: wrong[name] for name in sorted(chosen)}


def judge(name: str, store: OofReader, past: Past) -> Wrong:
    """Compare a store's prediction of an image with what is true of it."""
    true = past.truth.get(name, {})
    there = np.zeros(len(past.spec.classes), bool)
    there[list(true)] = True
    if store.predicts == "label":
        sure = store.label(name)
        seen = sure >= 0.5
        false, missed = sure[seen & ~there], 1 - sure[~seen & there]
        return Wrong(float(false.max(initial=0)), float(missed.max(initial=0)))
    predicted = store.quantised(name) >= 128
    pixels = predicted[0].size
    false = predicted[~there].sum() / pixels
    if not true:
        return Wrong(float(false))
    size = (predicted.shape[1], predicted.shape[2])
    mask = to_channels(decode_mask(true, store.size(name), len(there), size), len(there)) > 0
    area, found = mask.sum(axis=(1, 2)), (mask & predicted).sum(axis=(1, 2))
    return Wrong(float(false), float(area[found < FOUND * area].sum() / pixels))


def _work_out(past: Past, run: str, cap: float) -> dict[str, Wrong]:
    stores = past.stores(run)
    past.progress.start(f"judge {run}", len(stores), "images")
    look = partial(_look, past=past)
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        wrong = dict(zip(stores, pool.map(look, stores.items()), strict=True))
    past.progress.finish()
    chosen = hardest(wrong, round(cap * len(past.ids)))
    if past.keep is not None:
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(HEADER)
        writer.writerows((name, f"{w.false:.6f}", f"{w.missed:.6f}") for name, w in chosen.items())
        durable.write_text(past.keep / FILE, text.getvalue())
    past.progress.note(f"{len(chosen)} of them are hard: {_said(chosen)}")
    return chosen


def _look(item: tuple[str, OofReader], past: Past) -> Wrong:
    past.progress.advance()
    return judge(*item, past)


def _kept(past: Past) -> dict[str, Wrong] | None:
    """Return what was worked out before; a run that goes on draws by the same list."""
    path = Path() if past.keep is None else past.keep / FILE
    if not path.is_file():
        return None
    with path.open(newline="", encoding="utf-8") as file:
        return {row["image_id"]: Wrong() for row in csv.DictReader(file)}


def _said(chosen: Mapping[str, Wrong]) -> str:
    false = sum(one.false > 0 for one in chosen.values())
    missed = sum(one.missed > 0 for one in chosen.values())
    return f"{false} with false alarms, {missed} with missed defects"

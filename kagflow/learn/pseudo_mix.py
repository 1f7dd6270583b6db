"""Mix images with pseudo-labels into a fold's batches: a capped share of each, never more."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from kagflow.learn.cache import Cache, Part, Pixels, open_cache
from kagflow.learn.dataset import Sample, Samples, to_channels
from kagflow.learn.job import Job, cache_folder, pair
from kagflow.learn.oof import OofReader
from kagflow.learn.pseudo import PROBS, ensure
from kagflow.learn.sampler import Draw, in_turn
from kagflow.progress import QUIET, Progress

# A stream of its own: the draws of the labelled images stay what they are without the others.
_STREAM = 1


@dataclass(frozen=True)
class Joined(Cache):
    """Read a fold's cache and, from row `first` on, images with what a store says of them."""

    others: Cache
    store: OofReader

    @classmethod
    def of(cls, known: Cache, others: Cache, store: OofReader) -> Joined:
        """Put the others behind the known."""
        return cls(
            ids=(*known.ids, *others.ids),
            classes=known.classes,
            rows=np.concatenate([known.rows, others.rows]),
            images=known.images,
            masks=known.masks,
            others=others,
            store=store,
        )

    @property
    def first(self) -> int:
        """The first row with pseudo-labels."""
        return len(self.ids) - len(self.others.ids)

    def image(self, row: int) -> Pixels:
        """Return image `(h, w)` uint8, a read-only view."""
        return super().image(row) if row < self.first else self.others.image(row - self.first)

    def mask(self, row: int) -> Pixels:
        """Return what `Cache.mask` does, or `(h, w, C)` probabilities of 255 from `first` on."""
        if row < self.first:
            return super().mask(row)
        if self.store.predicts == "label":
            return self.others.mask(row - self.first)
        return np.ascontiguousarray(self.store.quantised(self.ids[row]).transpose(1, 2, 0))


class SoftSamples(Samples):
    """Make samples whose masks are probabilities of 255 on their way to the device.

    `batch` and single samples hold `mask` `(K, h, w)` uint8 of 255; `finish` makes 0..1 of it. A
    crop with pseudo-labels has the label of its most probable pixel, a classifier's the image's.
    """

    cache: Joined

    def pixels(self, row: int, draw: Draw) -> tuple[Pixels, Pixels | None]:
        """Return the cropped and augmented image, and its mask `(h, w, K)` of 255."""
        image, mask = super().pixels(row, draw)
        if mask is None:
            return image, None
        if row >= self.cache.first and self.cache.store.predicts == "mask":
            return image, mask.reshape(*mask.shape[:2], self.cache.classes)
        sure = 255 * to_channels(mask, self.cache.classes)
        return image, np.ascontiguousarray(sure.transpose(1, 2, 0))

    def finish(self, batch: Sample) -> Sample:
        """Return what `Samples.finish` does, the mask `(N, K, h, w)` float32 in 0..1."""
        done = super().finish(batch)
        if "mask" in done:
            done["mask"] = done["mask"].float().div_(255)
        return done

    def _label(self, draw: Draw, mask: Pixels | None) -> npt.NDArray[np.float32]:
        row = int(self.rows[draw.image])
        if row < self.cache.first:
            return super()._label(draw, mask)
        if self.cache.store.predicts == "label":
            return self.cache.store.label(self.cache.ids[row])
        soft = self.cache.mask(row) if mask is None else mask
        return np.asarray(soft.reshape(-1, self.cache.classes).max(axis=0) / 255, np.float32)


@dataclass(frozen=True)
class Mix:
    """Replace the last images of each optimiser step's batches by ones with pseudo-labels.

    Of a step's `batch` * `accumulate` images at most `share` are. They come in turn, the same for
    the same (seed, epoch), from those of the `samples` that follow the `known` ones.
    """

    samples: SoftSamples
    known: int
    batch: int
    accumulate: int
    share: float
    seed: int

    def draws(self, known: Sequence[Draw], epoch: int) -> list[Draw]:
        """Return an epoch's draws with others in the place of some."""
        mixed, places = list(known), self.places(len(known))
        rng = np.random.default_rng((self.seed, epoch, _STREAM))
        chosen = in_turn(len(self.samples) - self.known, len(places), rng)
        seeds = rng.integers(0, 2**32, size=len(places), dtype=np.int64)
        for place, image, seed in zip(places, chosen, seeds, strict=True):
            mixed[place] = Draw(self.known + int(image), int(seed), centred=False)
        return mixed

    def places(self, samples: int) -> list[int]:
        """List where in an epoch they stand: at the end of a batch."""
        found = list[int]()
        for start in range(0, samples, self.batch):
            end, at = min(start + self.batch, samples), start // self.batch % self.accumulate
            # Cut short, a batch has no more than its share either.
            size = end - start
            before, after = (int(self.share * (at * self.batch + n) + 1e-9) for n in (0, size))
            found += range(end - (after - before), end)
        return found


def open_mix(job: Job, known: Samples, device: str, progress: Progress = QUIET) -> Mix | None:
    """Join a fold's samples with what its recipe's ensemble says of others; None without one.

    Raises what `pseudo.ensure` does.
    """
    store, recipe = ensure(job, device, progress), job.recipe
    if store is None:
        return None
    reader = OofReader(store / PROBS)
    others = _images(job, reader, progress)
    joined = Joined.of(known.cache, others, reader)
    rows = np.concatenate([known.rows, joined.first + np.arange(len(others.ids))])
    return Mix(
        SoftSamples(joined, rows, known.labels, known.steps),
        known=len(known),
        batch=recipe["batch"],
        accumulate=recipe["accumulate"],
        share=recipe["pseudo_share"],
        seed=recipe["seed"],
    )


def _images(job: Job, store: OofReader, progress: Progress) -> Cache:
    """Decode the test images of a store at the recipe's size."""
    part = Part(set(store.image_ids), {}, job.data / job.spec.test_images)
    size, folder = pair(job.recipe["size"]), cache_folder(job)
    return open_cache(job.data, job.spec, size, part=part, folder=folder, progress=progress)

"""Time the making of training samples beside the usual notebook Dataset, on one core.

Both arms read the same JPEG files of generated steel (256x1600, quality 95) and the same run
lengths, in the same order, and augment alike: both flips, brightness and contrast, a small shift
and scale. The notebook decodes colour, fills a 4-channel float mask, augments and normalises the
whole frame and then crops; kagflow decodes once to grey bytes, crops first and makes floats of a
whole batch last, on the device. Both end with batches of 8: the notebook's are float images and
masks; kagflow's are bytes as they go to the device, or, to `finish`, the same floats made on this
core.
"""

from __future__ import annotations

import itertools
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import albumentations as A
import cv2
import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset

from kagflow import resources
from kagflow.infer.image import Grey
from kagflow.learn import augment
from kagflow.learn.cache import Part, open_cache
from kagflow.learn.dataset import Sample, Samples, Steps
from kagflow.learn.feed import Feed
from kagflow.learn.sampler import Draw, Plain, draws
from kagflow.task.rle import encode
from kagflow.task.spec import TaskSpec

FRAMES, BATCH = 48, 8
PAIRS = 9
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
SPEC = TaskSpec("steel", "segmentation", ("1", "2", "3", "4"), height=256, width=1600)


def write_frames(data: Path) -> dict[str, dict[int, str]]:
    """Write frames of severstal-mini at quality 95; return run lengths by image and class index."""
    sys.path.insert(0, str(resources.competitions()))
    from severstal import mini

    (data / "train_images").mkdir(parents=True)
    truth: dict[str, dict[int, str]] = {}
    for frame in list(mini.plan(0))[:FRAMES]:
        image, masks = mini.draw(frame)
        colour = cv2.cvtColor(image, cv2.COLOR_GRAY2BGR)
        path = data / "train_images" / frame.image_id
        cv2.imwrite(str(path), colour, [cv2.IMWRITE_JPEG_QUALITY, 95])
        truth[frame.image_id] = {kind - 1: encode(mask) for kind, mask in masks.items()}
    (data / "manifest.json").write_text("{}")
    (data / SPEC.train_csv).write_text("")
    return truth


class Notebook(Dataset[tuple[torch.Tensor, torch.Tensor]]):
    """The Dataset of the competition's public notebooks, with albumentations of today."""

    def __init__(
        self, folder: Path, truth: dict[str, dict[int, str]], crop: tuple[int, int] | None
    ) -> None:
        self.folder, self.truth, self.names = folder, truth, sorted(truth)
        last = [] if crop is None else [A.RandomCrop(*crop)]
        self.transforms = A.Compose(
            [
                A.HorizontalFlip(p=0.5),
                A.VerticalFlip(p=0.5),
                A.RandomBrightnessContrast(0.2, 0.2, p=0.5),
                A.Affine(translate_percent=(-0.05, 0.05), scale=(0.9, 1.1), border_mode=4, p=0.5),
                A.Normalize(MEAN, STD),
                *last,
                A.ToTensorV2(transpose_mask=True),
            ]
        )

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, torch.Tensor]:
        name = self.names[index]
        image = cv2.imread(str(self.folder / name))
        done = self.transforms(image=image, mask=self.mask(name))
        return done["image"], done["mask"]

    def mask(self, name: str) -> np.ndarray:
        """Decode as the notebooks do: one flat array a class, filled run by run."""
        masks = np.zeros((256, 1600, 4), np.float32)
        for index, text in self.truth[name].items():
            positions = list(map(int, text.split()[0::2]))
            length = list(map(int, text.split()[1::2]))
            flat = np.zeros(256 * 1600, np.uint8)
            for pos, le in zip(positions, length, strict=True):
                flat[pos - 1 : pos - 1 + le] = 1
            masks[:, :, index] = flat.reshape(256, 1600, order="F")
        return masks


def ours(data: Path, truth: dict[str, dict[int, str]], crop: tuple[int, int] | None) -> Samples:
    """Return kagflow's samples; the cache is made here, once, as a training makes it."""
    cache = open_cache(data, SPEC, None, part=Part(None, truth), folder=data / "cache")
    labels = np.zeros((len(cache.ids), 4), bool)
    for row, name in enumerate(cache.ids):
        labels[row, list(truth[name])] = True
    steps = Steps(crop=crop, compose=augment.light(), make_input=Grey(), masks=True)
    return Samples(cache, np.arange(len(cache.ids)), labels, steps)


def our_batches(samples: Samples, drawn: list[Draw], *, finish: bool = True) -> Iterator[Sample]:
    """Yield what the loop's feed gives, to `finish` as floats, as a step makes them."""
    feed = Feed(samples, workers=0, device=torch.device("cpu"))
    feed.begin([drawn[at : at + BATCH] for at in range(0, len(drawn), BATCH)])
    for window in feed.windows(1):
        yield samples.finish(window.batches[0]) if finish else window.batches[0]


def their_batches(notebook: Notebook, drawn: list[Draw]) -> Iterator[list[torch.Tensor]]:
    """Yield what the notebook's loader gives."""
    yield from DataLoader(notebook, BATCH, sampler=[draw.image for draw in drawn])


def seconds(read: Callable[[list[Draw]], Iterator[Any]], drawn: list[Draw]) -> float:
    """Return the seconds of making the samples of `drawn`, each batch let go as a loop does."""
    start = time.perf_counter()
    for batch in read(drawn):
        del batch
    return time.perf_counter() - start


def pairs(
    crop: tuple[int, int] | None, count: int = PAIRS, *, finish: bool = True
) -> list[tuple[float, float]]:
    """Return (ours, the notebook's) seconds for the same images, alternating."""
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    with tempfile.TemporaryDirectory(prefix="kagflow-bench-") as name:
        data = Path(name)
        truth = write_frames(data)
        samples, notebook = ours(data, truth, crop), Notebook(data / "train_images", truth, crop)
        check(samples, notebook, crop)
        mine = partial(our_batches, samples, finish=finish)
        arms = [mine, partial(their_batches, notebook)]
        order = partial(draws, Plain(), samples.labels, samples=FRAMES, epochs=count + 1, seed=0)
        found = []
        for epoch in range(count + 1):
            drawn = order(epoch=epoch)
            took = [seconds(arm, drawn) for arm in (arms[::-1] if epoch % 2 else arms)]
            found.append((took[1], took[0]) if epoch % 2 else (took[0], took[1]))
        # The first warms both up.
        return found[1:]


def check(samples: Samples, notebook: Notebook, crop: tuple[int, int] | None) -> None:
    """Hold both arms to the same shapes, the same truth and defects in it."""
    size = crop or (256, 1600)
    drawn = draws(Plain(), samples.labels, samples=BATCH, epoch=0, epochs=1, seed=0)
    image, mask = next(their_batches(notebook, drawn))
    batch = next(our_batches(samples, drawn))
    assert batch["image"].shape[2:] == image.shape[2:] == torch.Size(size)
    assert batch["mask"].shape == mask.shape == torch.Size((BATCH, 4, *size))
    types = {one.dtype for one in (batch["image"], batch["mask"], image, mask)}
    assert types == {torch.float32}
    areas = 0
    for row, name in enumerate(samples.cache.ids):
        label_map, theirs = samples.cache.mask(row), notebook.mask(name)
        planes = np.stack([label_map == index + 1 for index in range(4)], axis=2)
        if label_map.ndim == 3:
            planes = label_map.astype(bool)
        assert np.array_equal(planes, theirs > 0)
        areas += int(theirs.sum())
    assert areas > 0, "no defect is in the frames"


if __name__ == "__main__":
    count = int(sys.argv[1]) if len(sys.argv) > 1 else PAIRS
    for wanted, finish in itertools.product(((256, 512), None), (False, True)):
        found = pairs(wanted, count, finish=finish)
        ratios = sorted(theirs / mine for mine, theirs in found)
        each = [1000 * sum(one[arm] for one in found) / len(found) / FRAMES for arm in (0, 1)]
        print(
            f"{wanted or 'full frame'} as {'floats' if finish else 'bytes'}: {each[0]:.2f} ms "
            f"against {each[1]:.2f} ms a sample, "
            f"x{ratios[len(ratios) // 2]:.1f} ({ratios[0]:.1f} to {ratios[-1]:.1f})"
        )

"""Time the making of training samples beside the usual notebook Dataset, on one core.

Both arms read the same JPEG files of generated steel (256x1600, quality 95) and the same run
lengths, in the same order, and augment alike: both flips, brightness and contrast, a small shift
and scale. The notebook decodes colour, fills a 4-channel float mask, augments and normalises the
whole frame and then crops; kagflow decodes once to grey bytes, crops first and normalises last.
"""

from __future__ import annotations

import sys
import tempfile
import time
from functools import partial
from pathlib import Path
from typing import Any

import albumentations as A
import cv2
import numpy as np
import torch
from torch.utils.data import Dataset

from kagflow import resources
from kagflow.infer.image import Grey
from kagflow.learn import augment
from kagflow.learn.cache import Part, open_cache
from kagflow.learn.dataset import Samples, Steps
from kagflow.learn.sampler import Plain, draws
from kagflow.task.rle import encode
from kagflow.task.spec import TaskSpec

FRAMES = 48
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


def seconds(read: Any, order: list[Any]) -> float:
    """Return the seconds of making the samples of `order`."""
    start = time.perf_counter()
    for one in order:
        read(one)
    return time.perf_counter() - start


def pairs(crop: tuple[int, int] | None, count: int = PAIRS) -> list[tuple[float, float]]:
    """Return (ours, the notebook's) seconds for the same images, alternating."""
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    with tempfile.TemporaryDirectory(prefix="kagflow-bench-") as name:
        data = Path(name)
        truth = write_frames(data)
        samples, notebook = ours(data, truth, crop), Notebook(data / "train_images", truth, crop)
        check(samples, notebook, crop)
        order = partial(draws, Plain(), samples.labels, samples=FRAMES, epochs=count + 1, seed=0)
        found = []
        for epoch in range(count + 1):
            mine = order(epoch=epoch)
            theirs = [draw.image for draw in mine]
            if epoch % 2:
                second = seconds(notebook.__getitem__, theirs)
                found.append((seconds(samples.__getitem__, mine), second))
            else:
                first = seconds(samples.__getitem__, mine)
                found.append((first, seconds(notebook.__getitem__, theirs)))
        # The first warms both up.
        return found[1:]


def check(samples: Samples, notebook: Notebook, crop: tuple[int, int] | None) -> None:
    """Hold both arms to the same shapes, the same truth and defects in it."""
    size = crop or (256, 1600)
    draw = draws(Plain(), samples.labels, samples=1, epoch=0, epochs=1, seed=0)[0]
    image, mask = notebook[0]
    sample = samples[draw]
    assert sample["image"].shape[1:] == image.shape[1:] == torch.Size(size)
    assert sample["mask"].shape == mask.shape == torch.Size((4, *size))
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
    for wanted in ((256, 512), None):
        found = pairs(wanted, int(sys.argv[1]) if len(sys.argv) > 1 else PAIRS)
        ratios = sorted(theirs / mine for mine, theirs in found)
        each = [1000 * sum(one[arm] for one in found) / len(found) / FRAMES for arm in (0, 1)]
        print(
            f"{wanted or 'full frame'}: {each[0]:.2f} ms against {each[1]:.2f} ms a sample, "
            f"x{ratios[len(ratios) // 2]:.1f} ({ratios[0]:.1f} to {ratios[-1]:.1f})"
        )

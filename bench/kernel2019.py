"""Predict as the public kernels of 2019 do: what kagflow's inference is measured against.

Written after the structure of mlcomp's: traced models, one DataLoader a view with albumentations
on colour images, each view a forward of its own, thresholds, areas and run lengths by numpy in the
main loop, a data frame at the end. The classifier, where there is one, goes through all images
first, and what it finds clean is left out of the second loop. `num_workers` is 0, as there: with
processes beside the forward it was slower on two cores. No part is slowed down on purpose.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")

import albumentations as A
import cv2
import numpy as np
import pandas as pd
import torch
from rle import notebook_encode as mask2rle
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

Loaded = tuple[Sequence[torch.nn.Module], torch.nn.Module | None]
FLIPS = {"none": [], "hflip": [A.HorizontalFlip(p=1)], "vflip": [A.VerticalFlip(p=1)]}
AXES = {"none": [], "hflip": [3], "vflip": [2]}


@dataclass
class Kernel:
    """What such a kernel has at its top; `classifier` None is none.

    `forward` adds up what the models took: seconds on the wall and of the thread.
    """

    folder: Path
    models: Sequence[Path]
    classifier: Path | None
    views: Sequence[str]
    gates: Sequence[float]
    thresholds: Sequence[float]
    min_area: Sequence[int]
    mean: float
    std: float
    batch: int
    forward: list[float] = field(default_factory=lambda: [0.0, 0.0])


class Images(Dataset[tuple[Tensor, str]]):
    """Read an image in colour, flip, normalise."""

    def __init__(self, kernel: Kernel, names: Sequence[str], view: str) -> None:
        self.folder, self.names = kernel.folder, names
        normal = A.Normalize((kernel.mean,) * 3, (kernel.std,) * 3)
        self.transforms = A.Compose([*FLIPS[view], normal, A.ToTensorV2()])

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, index: int) -> tuple[Tensor, str]:
        name = self.names[index]
        image = cv2.cvtColor(cv2.imread(str(self.folder / name)), cv2.COLOR_BGR2RGB)
        return self.transforms(image=image)["image"], name


def load(kernel: Kernel) -> Loaded:
    """Return the models, and the classifier where there is one."""
    models = [torch.jit.load(str(path)) for path in kernel.models]
    return models, kernel.classifier and torch.jit.load(str(kernel.classifier))


@torch.no_grad()
def run(kernel: Kernel, loaded: Loaded, names: Sequence[str], target: Path) -> None:
    """Predict `names`, write `target`."""
    models, classifier = loaded
    found: dict[str, np.ndarray] = {}
    if classifier:
        loader = DataLoader(Images(kernel, names, "none"), kernel.batch, num_workers=0)
        for features, files in loader:
            labels = forward(kernel, [classifier], [features], ["none"], mask=False)
            found |= dict(zip(files, labels.cpu().numpy() >= np.array(kernel.gates), strict=True))
    kept = [name for name in names if name not in found or found[name].any()]
    rows = {(name, index): "" for name in names for index in range(len(kernel.thresholds))}
    for preds, files in predictions(kernel, models, kept):
        for p, file in zip(preds, files, strict=True):
            for i in range(len(p)):
                mask = (p[i] > kernel.thresholds[i]).astype(np.uint8)
                gone = file in found and not found[file][i]
                if gone or mask.sum() < kernel.min_area[i]:
                    mask = np.zeros(mask.shape, mask.dtype)
                rows[file, i] = mask2rle(mask)
    table = [{"ImageId_ClassId": f"{n}_{i + 1}", "EncodedPixels": t} for (n, i), t in rows.items()]
    pd.DataFrame(table).to_csv(target, index=False)


def predictions(
    kernel: Kernel, models: Sequence[torch.nn.Module], names: Sequence[str]
) -> Iterator[tuple[np.ndarray, Sequence[str]]]:
    """Yield probabilities (N, C, H, W) and file names, batch by batch."""
    loaders = [
        DataLoader(Images(kernel, names, view), kernel.batch, num_workers=0)
        for view in kernel.views
    ]
    for batches in zip(*loaders, strict=True):
        features = [batch[0] for batch in batches]
        probs = forward(kernel, models, features, kernel.views, mask=True)
        yield probs.detach().cpu().numpy(), batches[0][1]


def forward(
    kernel: Kernel,
    models: Sequence[torch.nn.Module],
    views: Sequence[Tensor],
    names: Sequence[str],
    *,
    mask: bool,
) -> Tensor:
    """Return the mean over models and views; its clock is what a GPU would take over."""
    wall, own = time.perf_counter(), time.thread_time()
    preds = []
    for features, name in zip(views, names, strict=True):
        p = torch.mean(torch.stack([torch.sigmoid(model(features)) for model in models]), dim=0)
        preds.append(p.flip(AXES[name]) if mask else p)
    done = torch.mean(torch.stack(preds), dim=0)
    kernel.forward[0] += time.perf_counter() - wall
    kernel.forward[1] += time.thread_time() - own
    return done

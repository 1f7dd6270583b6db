"""The usual smp script: what kagflow's default recipe is measured against.

Written as people write it, but for its clock: Unet or FPN of smp, three channels normalised as
ImageNet's, BCE, every image once an epoch in random order, horizontal flips, Adam with one learning
rate for all and for the whole time, the last weights. It stops when it has seen so many images.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")

import albumentations as A
import cv2
import numpy as np
import segmentation_models_pytorch as smp
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from kagflow.learn.pretrained import load_packaged
from kagflow.task import rle

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
Item = tuple[Tensor, Tensor]
Truth = dict[str, dict[int, str]]


@dataclass(frozen=True)
class Script:
    """What such a script has at its top; `size` is (height, width), `images` are those it sees."""

    arch: str
    model: dict[str, Any]
    classes: int
    size: tuple[int, int]
    batch: int
    lr: float
    seed: int
    images: int


class Images(Dataset[Item]):
    """Read an image and its masks, resize, flip, normalise."""

    def __init__(self, files: Sequence[Path], truth: Truth, script: Script) -> None:
        self.files, self.truth, self.classes = files, truth, script.classes
        self.augment = A.Compose(
            [A.Resize(*script.size), A.HorizontalFlip(p=0.5), A.Normalize(MEAN, STD)]
        )

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> Item:
        path = self.files[index]
        image = cv2.cvtColor(cv2.imread(str(path)), cv2.COLOR_BGR2RGB)
        mask = np.zeros((*image.shape[:2], self.classes), np.float32)
        for at, text in self.truth.get(path.name, {}).items():
            mask[..., at] = rle.decode(text, *mask.shape[:2])
        done = self.augment(image=image, mask=mask)
        to_tensor = torch.from_numpy
        return to_tensor(done["image"]).permute(2, 0, 1), to_tensor(done["mask"]).permute(2, 0, 1)


def build(script: Script) -> nn.Module:
    """Build smp's model and load the packaged ImageNet weights into its encoder."""
    given = {"classes": script.classes, "encoder_weights": None} | script.model
    model: nn.Module = getattr(smp, script.arch)(**given)
    load_packaged(model, {"target": "smp", "kwargs": {"encoder": script.model["encoder_name"]}})
    return model


def train(script: Script, files: Sequence[Path], truth: Truth) -> tuple[nn.Module, dict[str, Any]]:
    """Train until `script.images` are seen; tell the CPU seconds and the last losses' mean."""
    torch.manual_seed(script.seed)
    np.random.seed(script.seed)  # noqa: NPY002 - the seed line of every such script
    began = time.process_time()
    loader = DataLoader(
        Images(files, truth, script), batch_size=script.batch, shuffle=True, drop_last=True
    )
    model = build(script)
    criterion = nn.BCEWithLogitsLoss()
    optimiser = torch.optim.Adam(model.parameters(), lr=script.lr)
    model.train()
    seen, losses = 0, []
    while True:
        for images, masks in loader:
            if seen + script.batch > script.images:
                return model, {
                    "cpu_seconds": time.process_time() - began,
                    "images_seen": seen,
                    "loss": float(np.mean(losses[-20:])),
                }
            optimiser.zero_grad()
            loss = criterion(model(images), masks)
            loss.backward()
            optimiser.step()
            seen += len(images)
            losses.append(loss.item())


@torch.no_grad()
def predict(
    model: nn.Module, script: Script, files: Sequence[Path], *, flip: bool
) -> Iterator[tuple[str, NDArray[np.float32], tuple[int, int]]]:
    """Yield name, probabilities (C, h, w) at working size and the image's own (height, width)."""
    prepare = A.Compose([A.Resize(*script.size), A.Normalize(MEAN, STD)])
    model.eval()
    for path in files:
        image = cv2.cvtColor(cv2.imread(str(path)), cv2.COLOR_BGR2RGB)
        batch = torch.from_numpy(prepare(image=image)["image"]).permute(2, 0, 1)[None]
        probs = model(batch).sigmoid()
        if flip:
            probs = (probs + model(batch.flip(-1)).sigmoid().flip(-1)) / 2
        yield path.name, probs[0].numpy(), image.shape[:2]

"""Make what inference is timed on: steel frames of 256x1600, networks, and rules that find some.

The networks are drawn at random. Their batch norms see the frames first, and their last layers are
scaled so that a few pixels of a hundred are lit; thresholds, areas and gates are then put so that
two rows of five or more hold a mask, the gate lets every other frame pass, and what it lets pass is
large enough to be written. So masks have borders to write, and no value lies on a threshold.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import cv2
import numpy as np
import torch
from torch import Tensor, nn

from kagflow import resources
from kagflow.infer.engine import Member
from kagflow.infer.export import save_weights
from kagflow.infer.forward import forward
from kagflow.infer.image import Grey
from kagflow.infer.members import load_member
from kagflow.infer.models import build_model
from kagflow.infer.postprocess import ClassRule
from kagflow.task.spec import TaskSpec

SPEC = TaskSpec("steel", "segmentation", ("1", "2", "3", "4"), height=256, width=1600)
GREY = {"target": "grey", "kwargs": {"channels": 3}}
FPN = {"target": "smp", "kwargs": {"arch": "FPN", "encoder": "tu-tf_efficientnet_lite0"}}
UNET = {"target": "smp", "kwargs": {"arch": "Unet", "encoder": "resnet18"}}
GATE = {"target": "timm", "kwargs": {"name": "tf_efficientnet_lite0"}}
VIEWS = ("none", "hflip")
# Of a map's pixels, and of the rows and the frames.
LIT, EMPTY_ROWS, GATED = 0.02, 0.6, 0.5


class Small(nn.Module):
    """A segmenter whose forward is next to nothing, so that the rest of a run is seen."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.head = nn.Conv2d(3, classes, 3, padding=1)

    def forward(self, batch: Tensor) -> Tensor:
        """Return logits (N, C, H, W)."""
        coarse = self.head(nn.functional.avg_pool2d(batch, 16))
        return nn.functional.interpolate(coarse, scale_factor=16.0, mode="bilinear")


@dataclass(frozen=True)
class World:
    """Frames in `folder`/test_images, the members that see them and their rules.

    `traced` are the same members for the kernel of 2019.
    """

    folder: Path
    names: tuple[str, ...]
    members: tuple[Member, ...]
    rules: tuple[ClassRule, ...]
    traced: tuple[Path, ...]

    @property
    def files(self) -> list[tuple[str, Path]]:
        """Return (id, path) of the frames."""
        return [(name, self.folder / "test_images" / name) for name in self.names]

    @property
    def sample(self) -> Path:
        """Return the sample submission."""
        return self.folder / SPEC.sample_submission


def make(
    folder: Path, frames: int, masks: Sequence[dict] = (FPN, UNET), labels: Sequence[dict] = (GATE,)
) -> World:
    """Write a world of so many frames below `folder`, with these segmenters and gates."""
    torch.manual_seed(0)
    images = write_frames(folder, frames)
    seen = Grey(channels=3)
    batch = torch.from_numpy(np.stack([seen(image, {}) for image in images]))
    kinds = [*(("mask", one) for one in masks), *(("label", one) for one in labels)]
    members = tuple(
        _member(folder / f"{at}.safetensors", kind, model, batch)
        for at, (kind, model) in enumerate(kinds)
    )
    names = tuple(sorted(path.name for path in (folder / "test_images").iterdir()))
    world = World(folder, names, members, (), tuple(_trace(one, batch[:2]) for one in members))
    return replace(world, rules=_rules(members, batch))


def write_frames(folder: Path, count: int) -> list[np.ndarray]:
    """Write frames of severstal-mini at quality 95 and a sample submission; return them read."""
    sys.path.insert(0, str(resources.competitions()))
    from severstal import mini

    images = folder / "test_images"
    images.mkdir(parents=True)
    for frame in list(mini.plan(0))[:count]:
        colour = cv2.cvtColor(mini.draw(frame)[0], cv2.COLOR_GRAY2BGR)
        cv2.imwrite(str(images / frame.image_id), colour, [cv2.IMWRITE_JPEG_QUALITY, 95])
    paths = sorted(images.iterdir())
    rows = [f"{path.name}_{label}," for path in paths for label in SPEC.classes]
    (folder / SPEC.sample_submission).write_text(
        "\n".join(["ImageId_ClassId,EncodedPixels", *rows]) + "\n"
    )
    return [cv2.imread(str(path), cv2.IMREAD_GRAYSCALE) for path in paths]


def _member(path: Path, kind: str, model: dict, batch: Tensor) -> Member:
    """Draw a network, fit it to the frames, store it."""
    channels = "in_chans" if kind == "label" else "in_channels"
    if ":" not in model["target"]:
        model = {**model, "kwargs": {**model["kwargs"], channels: 3}}
    module = build_model(model, classes=len(SPEC.classes)).train()
    for one in module.modules():
        if isinstance(one, nn.BatchNorm2d):
            one.momentum = None
    with torch.no_grad():
        for part in batch.split(4):
            module(part)
        module.eval()
        _aim(module, torch.cat([module(part) for part in batch.split(4)]), 1 - LIT)
    save_weights(module, path)
    views = VIEWS if kind == "mask" else ("none",)
    return Member(path.stem, kind, model, GREY, None, (path,), tta=views)


def _aim(module: nn.Module, logits: Tensor, share: float) -> None:
    """Give each class's logits a spread of 2, and `share` of them below 0."""
    head = [m for m in module.modules() if isinstance(m, nn.Conv2d | nn.Linear)][-1]
    assert head.bias is not None
    for index, each in enumerate(logits.transpose(0, 1)):
        values = each.flatten().numpy()
        scale = 2 / float(values.std())
        head.weight[index] *= scale
        head.bias[index] = (head.bias[index] - float(np.quantile(values, share))) * scale


def _trace(member: Member, batch: Tensor) -> Path:
    """Write a member as the kernels of 2019 carry it; plain memory format, as there."""
    (module,) = load_member(member, len(SPEC.classes), "cpu")
    module = module.to(memory_format=torch.contiguous_format)
    path = member.weights[0].with_suffix(".pt")
    with torch.no_grad():
        torch.jit.trace(module, batch).save(str(path))
    return path


def _rules(members: Sequence[Member], batch: Tensor) -> tuple[ClassRule, ...]:
    """Put every threshold into a gap of what the members say."""
    maps, labels = (_answers(members, batch, kind) for kind in ("mask", "label"))
    gates = np.zeros(len(SPEC.classes))
    for share in np.linspace(0.2, 1, 81) if labels is not None else ():
        gates = np.quantile(labels, share, axis=0)
        if (labels >= gates).any(1).mean() <= GATED:
            break
    rules = []
    for index in range(len(SPEC.classes)):
        threshold = _between(maps[:, index], 1 - LIT, 0.005)
        areas = (maps[:, index] >= threshold).sum((1, 2))
        if labels is not None and (seen := labels[:, index] >= gates[index]).any():
            areas = areas[areas <= areas[seen].min()]
        smallest = int(_between(areas, EMPTY_ROWS, 0.2)) if len(areas) > 1 else 0
        rules.append(ClassRule(threshold, smallest, gate=float(gates[index])))
    return tuple(rules)


def _between(values: np.ndarray, share: float, around: float) -> float:
    """Return the middle of the widest gap near a quantile: no rounding decides there.

    Black borders give whole areas of one value.
    """
    ranked = np.sort(values, axis=None)
    low, high = (int((share + by) * len(ranked)) for by in (-around, around))
    near = ranked[low : high + 1].astype(np.float64)
    at = int(np.diff(near).argmax())
    return float(near[at] + near[at + 1]) / 2


def _answers(members: Sequence[Member], batch: Tensor, kind: str) -> np.ndarray | None:
    """Return the mean masks (N, C, H, W) or labels (N, C) of the members of a kind."""
    found = []
    for one in members:
        if one.predicts == kind:
            modules = load_member(one, len(SPEC.classes), "cpu")
            parts = [forward(modules, part, kind, one.tta) for part in batch.split(4)]
            found.append(torch.cat(parts).numpy())
    return np.mean(found, axis=0) if found else None

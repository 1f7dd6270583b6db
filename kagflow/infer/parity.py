"""Does a model say here what it said where it was packed? Checked on a few stored images.

Another release of torch, timm or smp, or weights loaded into the wrong places, may well run without
an error. So every file of weights travels with its answers for the same few images.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load_file, save
from torch import nn

from kagflow import durable
from kagflow.errors import DataError
from kagflow.infer.decode import decode, to_batch
from kagflow.infer.forward import forward
from kagflow.infer.members import Member

IMAGES = 8
FILE = "parity.safetensors"
# Masks are kept at every fourth pixel of both axes.
_EVERY = 4
# Largest difference of a probability and largest share of pixels on the other side of .5, by
# whether half precision was at work. fp32 sums in another order differ by 1e-5 or so; fp16 keeps
# three digits, which logits of a steep edge make visible.
_FULL, _HALF = (2e-3, 1e-3), (5e-2, 1e-2)

Stored = Mapping[str, NDArray[np.generic]]


@dataclass(frozen=True)
class Parity:
    """Stored images and answers; `images` of them are compared."""

    stored: Stored
    images: int = IMAGES

    def check(
        self, member: Member, modules: Sequence[nn.Module], device: str, *, half: bool
    ) -> str:
        """Compare a member's modules with what they said; return the differences as a sentence.

        Raises DataError where they are too large. A member without stored answers is passed over.
        """
        most, share = _HALF if half else _FULL
        worst, moved = 0.0, 0.0
        for module, weights in zip(modules, member.weights, strict=True):
            if f"{weights.name}.0" not in self.stored:
                continue
            found = answers(member, module, pictures(self.stored, self.images), device, half=half)
            for number, here in enumerate(found):
                there = self.stored[f"{weights.name}.{number}"].astype(np.float32)
                worst = max(worst, float(np.abs(here - there).max(initial=0.0)))
                moved = max(moved, float(((here >= 0.5) != (there >= 0.5)).mean()))
        said = f"parity of {member.name}: {worst:.1e} at most, {moved:.2%} of a mask moved"
        if not (worst <= most and moved <= share):
            raise DataError(
                f"{said}; allowed are {most:g} and {share:.2%}",
                hint="versions of torch, timm or smp differ from those it was packed with",
            )
        return said


def read(folder: Path, images: int = IMAGES) -> Parity | None:
    """Read a pack's stored answers, None where it has none.

    Raises DataError for a damaged file.
    """
    path = folder / FILE
    if not path.is_file():
        return None
    try:
        return Parity(load_file(path), images)
    except (SafetensorError, OSError) as error:
        raise DataError(f"{path}: not a readable safetensors file ({error})") from None


def pictures(stored: Stored, count: int) -> list[tuple[str, NDArray[np.uint8]]]:
    """Return the first `count` stored images as (id, (H, W) uint8)."""
    keys = [key for key in sorted(stored) if key.startswith("image.")][:count]
    return [(key, np.asarray(stored[key], np.uint8)) for key in keys]


def answers(
    member: Member,
    module: nn.Module,
    images: Sequence[tuple[str, NDArray[np.uint8]]],
    device: str,
    *,
    half: bool,
) -> list[NDArray[np.float32]]:
    """Return what one module says of each image: (C, h / 4, w / 4) or (C,) float32, one view."""
    found = []
    for item in decode([member], images):
        batch = to_batch([item], 0, device)
        precision = "auto" if half else "fp32"
        probs = forward([module], batch, member.predicts, ("none",), precision=precision)[0]
        kept = probs[..., ::_EVERY, ::_EVERY] if member.predicts == "mask" else probs
        found.append(np.ascontiguousarray(kept.cpu().numpy()))
    return found


def store(
    target: Path,
    images: Sequence[NDArray[np.uint8]],
    said: Mapping[str, Sequence[NDArray[np.float32]]],
) -> None:
    """Write images and the answers of each file of weights, by the file's name in the pack."""
    tensors: dict[str, NDArray[np.generic]] = {
        f"image.{number}": np.ascontiguousarray(image) for number, image in enumerate(images)
    }
    for name, each in said.items():
        tensors |= {f"{name}.{n}": one.astype(np.float16) for n, one in enumerate(each)}
    with durable.replacing(target) as beside:
        beside.write_bytes(save(tensors))

"""Files that a recipe's code makes once from the training part; they travel with the weights."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from kagflow import durable
from kagflow.errors import UsageError
from kagflow.learn.cache import Cache, Pixels
from kagflow.learn.job import FoldData
from kagflow.progress import QUIET, Progress
from kagflow.resolve import build

# An asset's name becomes part of a file name in the pack.
NAME = re.compile(r"[A-Za-z0-9_-]+")


@dataclass(frozen=True)
class TrainingImages:
    """Everything that an asset may be made of: what the fold trains on, no held-out image.

    `labels` `(N, C)` tells which classes each image shows; near-duplicates of held-out images
    share their fold, so none is here.
    """

    ids: tuple[str, ...]
    labels: npt.NDArray[np.bool_]
    cache: Cache
    rows: npt.NDArray[np.int64]

    @classmethod
    def of(cls, data: FoldData) -> TrainingImages:
        """Take the training part of a fold."""
        ids = tuple(data.cache.ids[row] for row in data.train)
        return cls(ids, data.labels[data.train], data.cache, data.train)

    def __len__(self) -> int:
        return len(self.ids)

    def image(self, index: int) -> Pixels:
        """Return image `(h, w)` uint8 at the working size."""
        return self.cache.image(int(self.rows[index]))

    def mask(self, index: int) -> Pixels:
        """Return its label map `(h, w)`, or channels `(h, w, C)` where classes overlap."""
        return self.cache.mask(int(self.rows[index]))


def make_assets(
    assets: Mapping[str, Mapping[str, Any]],
    images: TrainingImages,
    folder: Path,
    progress: Progress = QUIET,
) -> dict[str, str]:
    """Write `folder/<name>` for each asset that is not there yet; return their SHA-256 by name.

    A target is called with `images` and its kwargs, and returns the file's bytes, the same for
    the same images. Raises UsageError for a name or target that does not do.
    """
    hashes = {}
    for name, spec in assets.items():
        if not NAME.fullmatch(name):
            raise UsageError(f"asset '{name}'", hint="letters, digits, _ and - make its name")
        file = folder / name
        if not file.is_file():
            content = build(spec, {}, images=images)
            if not isinstance(content, bytes):
                raise UsageError(
                    f"asset '{name}': '{spec['target']}' returned a {type(content).__name__}",
                    hint="return the bytes of the file",
                )
            durable.write_bytes(file, content)
            progress.note(f"made asset {name} from {len(images)} training images")
        hashes[name] = durable.sha256_file(file)
    return hashes

"""How large the images are that a submission's masks must fit."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

    from kagflow.task.spec import TaskSpec


def known_sizes(data: Path, spec: TaskSpec, image_ids: Iterable[str]) -> dict[str, tuple[int, int]]:
    """Return {image id: (height, width)} of the test images that can be known.

    The competition's one size, or else what the headers of the files say.
    """
    if spec.height is not None and spec.width is not None:
        return dict.fromkeys(image_ids, (spec.height, spec.width))
    folder = data / spec.test_images
    files = {file.name: file for file in folder.iterdir()} if folder.is_dir() else {}
    files = {file.stem: file for file in files.values()} | files
    found = {image_id: _size(files[image_id]) for image_id in image_ids if image_id in files}
    return {image_id: size for image_id, size in found.items() if size is not None}


def _size(file: Path) -> tuple[int, int] | None:
    from PIL import Image

    try:
        with warnings.catch_warnings():
            # Only the header is read, so a bomb does not go off.
            warnings.simplefilter("ignore")
            with Image.open(file) as image:
                return image.height, image.width
    except (OSError, ValueError, Image.DecompressionBombError):
        return None

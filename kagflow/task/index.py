"""Look at every image once: its size, and a hash by which near-duplicates are found."""

from __future__ import annotations

import hashlib
import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import astuple, dataclass
from typing import TYPE_CHECKING

import cv2
import numpy as np

from kagflow.errors import DataError
from kagflow.progress import QUIET
from kagflow.task.table import read_table, write_table

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from numpy.typing import NDArray

    from kagflow.progress import Progress

SUFFIXES = frozenset({".bmp", ".jpeg", ".jpg", ".png", ".tif", ".tiff"})
HEADER = ("image_id", "height", "width", "phash")
# Grey levels of a 32x32 thumbnail's standard deviation; below it the hash would be of noise.
_FLAT = 1.0


@dataclass(frozen=True)
class ImageRow:
    """Hold an image's file name, its size in pixels, and its 64-bit hash."""

    image_id: str
    height: int
    width: int
    phash: int


def image_files(folder: Path) -> list[Path]:
    """List a folder's images, sorted by name; raises DataError where there are none."""
    found = sorted(folder.iterdir()) if folder.is_dir() else []
    files = [f for f in found if f.suffix.lower() in SUFFIXES and not f.name.startswith(".")]
    if not files:
        raise DataError(f"{folder} holds no images", hint="Fetch the competition again.")
    return files


def build_index(folder: Path, progress: Progress | None = None) -> list[ImageRow]:
    """Decode every image of a folder once and return its rows, sorted by name.

    Raises DataError naming the first file that cannot be decoded whole.
    """
    files = image_files(folder)
    progress = progress or QUIET
    rows = []
    progress.start(f"index {folder.name}", len(files), "images")
    # Decoding leaves the interpreter's lock, so threads share the cores.
    with ThreadPoolExecutor(os.cpu_count() or 1) as pool:
        for row in pool.map(index_image, files):
            rows.append(row)
            progress.advance()
    progress.finish()
    return rows


def index_image(file: Path) -> ImageRow:
    """Decode one image; raises DataError where it is missing, cut short or no image."""
    try:
        content = file.read_bytes()
    except OSError as fault:
        raise DataError(f"{file}: {fault.strerror}", hint="Fetch the competition again.") from None
    grey = None
    if content:
        grey = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_GRAYSCALE)
    if grey is None:
        raise DataError(
            f"{file} is not a whole image ({len(content)} bytes)",
            hint="Fetch the competition again, or take the image and its labels out.",
        )
    return ImageRow(file.name, grey.shape[0], grey.shape[1], perceptual_hash(grey))


def perceptual_hash(grey: NDArray[np.uint8]) -> int:
    """Return a 64-bit hash in which near-duplicate images (H, W) differ by few bits.

    The signs of the 8x8 lowest frequencies of the cosine transform of a 32x32 thumbnail against
    their median (Zauner 2010, as the package imagehash does it; written out because that package
    is missing on Kaggle). An image without any contrast has no look to compare: its hash is a
    digest of its pixels, so that only equal ones meet.
    """
    small = cv2.resize(grey, (32, 32), interpolation=cv2.INTER_AREA).astype(np.float32)
    if small.std() < _FLAT:
        return int.from_bytes(hashlib.blake2b(grey.tobytes(), digest_size=8).digest(), "big")
    low = cv2.dct(small)[:8, :8].ravel()
    bits = np.packbits(low > np.median(low))
    return int.from_bytes(bits.tobytes(), "big")


def write_index(path: Path, rows: Iterable[ImageRow]) -> None:
    """Write rows as CSV image_id,height,width,phash; the hash in hexadecimal."""
    write_table(path, HEADER, ([*astuple(row)[:3], f"{row.phash:016x}"] for row in rows))


def read_index(path: Path) -> dict[str, ImageRow]:
    """Read what `write_index` wrote, by image id; raises DataError on a bad cell."""
    table = read_table(path)
    columns = zip(*(table.column(name) for name in HEADER), strict=True)
    try:
        return {i: ImageRow(i, int(h), int(w), int(phash, 16)) for i, h, w, phash in columns}
    except ValueError as fault:
        raise DataError(f"{path}: {fault}", hint="Fetch the competition again.") from None

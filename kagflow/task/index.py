"""Look at every image once: its size, and hashes by which duplicates are found."""

from __future__ import annotations

import hashlib
import json
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
    from collections.abc import Iterable, Iterator, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from kagflow.progress import Progress

SUFFIXES = frozenset({".bmp", ".jpeg", ".jpg", ".png", ".tif", ".tiff"})
_PNG, _TIFF = b"\x89PNG\r\n\x1a\n", frozenset({".tif", ".tiff"})
HEADER = ("image_id", "height", "width", "phash", "pixels", "bits")
CHUNK = 128  # images after which what is known is written down
_WORK_SCHEMA = 1
# Grey levels of a 32x32 thumbnail's standard deviation; below it the hash would be of noise.
_FLAT = 1.0


@dataclass(frozen=True)
class ImageRow:
    """Hold an image's file name, its size in pixels, and its hashes.

    `phash` is near for near-duplicates, `pixels` (hexadecimal, "" where unknown) is equal for equal
    grey pixels only; `bits` a sample in the file.
    """

    image_id: str
    height: int
    width: int
    phash: int
    pixels: str = ""
    bits: int = 8


@dataclass(frozen=True)
class Broken:
    """Name a file that is no whole image, and say why."""

    image_id: str
    reason: str


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
    rows = []
    for found in look(image_files(folder), progress=progress):
        if isinstance(found, Broken):
            raise broken_fault(folder, found)
        rows.append(found)
    return rows


def look(
    files: Sequence[Path],
    *,
    work: Path | None = None,
    version: str = "",
    progress: Progress | None = None,
) -> list[ImageRow | Broken]:
    """Decode every file once, in parallel, and return what was found, in their order.

    With `work`, a file that an earlier call may have left half-done, images that it names are not
    decoded again, unless they or `version` have changed since.
    """
    progress = progress or QUIET
    known = _read_work(work, version) if work else {}
    progress.start("index images", len(files), "images")
    try:
        return list(_look(files, known, work, progress))
    finally:
        progress.finish()


def index_image(file: Path) -> ImageRow:
    """Decode one image; raises DataError where it is missing, cut short or no image."""
    found = _try_image(file)
    if isinstance(found, Broken):
        raise broken_fault(file.parent, found)
    return found


def broken_fault(folder: Path, broken: Broken) -> DataError:
    """Return the error that names a broken image."""
    return DataError(
        f"{folder / broken.image_id} {broken.reason}",
        hint="Fetch the competition again, or take the image and its labels out.",
    )


def perceptual_hash(grey: NDArray[np.uint8]) -> int:
    """Return a 64-bit hash in which near-duplicate images (H, W) differ by few bits.

    The signs of the 8x8 lowest frequencies of the cosine transform of a 32x32 thumbnail against
    their median (Zauner 2010, as the package imagehash does it; written out because that package
    is missing on Kaggle). An image without any contrast has no look to compare: its hash is a
    digest of its pixels, so that only equal ones meet.
    """
    small = cv2.resize(grey, (32, 32), interpolation=cv2.INTER_AREA).astype(np.float32)
    if small.std() < _FLAT:
        return int(_digest(grey), 16)
    low = cv2.dct(small)[:8, :8].ravel()
    bits = np.packbits(low > np.median(low))
    return int.from_bytes(bits.tobytes(), "big")


def write_index(path: Path, rows: Iterable[ImageRow]) -> None:
    """Write rows as CSV, one image a line; the perceptual hash in hexadecimal."""
    cells = (
        [row.image_id, row.height, row.width, f"{row.phash:016x}", row.pixels, row.bits]
        for row in rows
    )
    write_table(path, HEADER, cells)


def read_index(path: Path) -> dict[str, ImageRow]:
    """Read what `write_index` wrote, by image id; raises DataError on a bad cell."""
    table = read_table(path)
    # Indexes of earlier versions end after the perceptual hash.
    names = HEADER if HEADER[-1] in table.header else HEADER[:4]
    columns = zip(*(table.column(name) for name in names), strict=True)
    try:
        return {row[0]: _row(*row) for row in columns}
    except ValueError as fault:
        raise DataError(f"{path}: {fault}", hint="Fetch the competition again.") from None


def _row(
    image_id: str, height: str, width: str, phash: str, pixels: str = "", bits: str = "8"
) -> ImageRow:
    return ImageRow(image_id, int(height), int(width), int(phash, 16), pixels, int(bits))


def _look(
    files: Sequence[Path],
    known: dict[tuple[str, int, int], ImageRow],
    work: Path | None,
    progress: Progress,
) -> Iterator[ImageRow | Broken]:
    def one(file: Path) -> ImageRow | Broken:
        return known.get(_stamp(file)) or _try_image(file)

    # Decoding leaves the interpreter's lock, so threads share the cores.
    with ThreadPoolExecutor(os.cpu_count() or 1) as pool:
        for start in range(0, len(files), CHUNK):
            chunk = files[start : start + CHUNK]
            stamps = [_stamp(file) for file in chunk]
            found = list(pool.map(one, chunk))
            if work:
                _note(work, list(zip(stamps, found, strict=True)), known)
            progress.advance(len(chunk))
            yield from found


def _stamp(file: Path) -> tuple[str, int, int]:
    try:
        there = file.stat()
    except OSError:
        return file.name, -1, -1
    return file.name, there.st_size, there.st_mtime_ns


def _note(
    work: Path,
    found: Sequence[tuple[tuple[str, int, int], ImageRow | Broken]],
    known: dict[tuple[str, int, int], ImageRow],
) -> None:
    new = [pair for pair in found if pair[0] not in known and isinstance(pair[1], ImageRow)]
    # A kill may have torn the last line: a new one begins.
    lines = [json.dumps([*stamp, *astuple(row)[1:]]) for stamp, row in new]
    with work.open("a", encoding="utf-8") as file:
        file.write("".join(f"\n{line}" for line in lines))


def _read_work(work: Path, version: str) -> dict[tuple[str, int, int], ImageRow]:
    first = json.dumps({"schema": _WORK_SCHEMA, "version": version})
    try:
        lines = work.read_text(encoding="utf-8").split("\n")
    except (OSError, UnicodeDecodeError):
        lines = []
    if not lines or lines[0] != first:
        work.write_text(first, encoding="utf-8")
        return {}
    known = {}
    for line in lines[1:]:
        try:
            name, size, time, *rest = json.loads(line)
            known[name, size, time] = ImageRow(name, *rest)
        except (ValueError, TypeError):
            continue
    return known


def _try_image(file: Path) -> ImageRow | Broken:
    try:
        content = file.read_bytes()
    except OSError as fault:
        return Broken(file.name, f"is unreadable: {fault.strerror}")
    grey, bits = _decode(content, file.suffix.lower())
    if grey is None:
        return Broken(file.name, f"is not a whole image ({len(content)} bytes)")
    height, width = grey.shape
    return ImageRow(file.name, height, width, perceptual_hash(grey), _digest(grey), bits)


def _decode(content: bytes, suffix: str) -> tuple[NDArray[np.uint8] | None, int]:
    if not content:
        return None, 0
    raw = np.frombuffer(content, np.uint8)
    try:
        return cv2.imdecode(raw, cv2.IMREAD_GRAYSCALE), _bits(content, suffix)
    except cv2.error:
        return None, 0


def _bits(content: bytes, suffix: str) -> int:
    if content.startswith(_PNG):
        # The header's bit depth; less than eight is widened without loss.
        return max(8, content[24]) if len(content) > 24 else 8
    if suffix not in _TIFF:
        return 8
    whole = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_UNCHANGED)
    return 8 if whole is None else 8 * whole.dtype.itemsize


def _digest(grey: NDArray[np.uint8]) -> str:
    return hashlib.blake2b(np.ascontiguousarray(grey).tobytes(), digest_size=8).hexdigest()

"""Make what a rehearsed kernel finds as the competition: seen images, or unseen ones with traps."""

from __future__ import annotations

import hashlib
import itertools
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2

from kagflow.errors import DataError
from kagflow.task import forms, table
from kagflow.task.index import SUFFIXES, index_image
from kagflow.task.spec import TaskSpec
from kagflow.task.submission import expected_keys

# Pixels cut off for the image of odd size: sides that no stride divides.
_ODD = (7, 13)
TRAPS = ("cut", "odd", "empty", "grey", "colour")


@dataclass(frozen=True)
class Trial:
    """Hold a competition folder; `sizes` gives (height, width) by image id, `corrupt` image ids
    whose files can't be decoded. Training images are not there.
    """

    folder: Path
    images: int
    sizes: dict[str, tuple[int, int]]
    corrupt: frozenset[str]

    def sample(self, task: TaskSpec) -> Path:
        """Return the sample submission that asks for exactly these images."""
        return self.folder / task.sample_submission


@dataclass(frozen=True)
class _Source:
    ids: list[str]
    files: dict[str, Path]
    table: table.Table


def seen(data: Path, task: TaskSpec, target: Path, *, images: int) -> Trial:
    """Show the first test images under their own names, as a save does."""
    source = _source(data, task)
    ids = source.ids[:images]
    names = {image_id: source.files[image_id] for image_id in ids}
    return _lay(data, task, target, source=source, pairs=names)


def unseen(data: Path, task: TaskSpec, target: Path, *, images: int) -> Trial:
    """Show a set with other names and traps; the images are the public test's, again and again.

    One file is cut short, one is empty, one has an odd size, one is grey and one has colours and,
    as PNG, an alpha channel. Where the competition's size is fixed, the odd one counts as corrupt.
    """
    source = _source(data, task)
    pairs: dict[str, Path] = {}
    for at, old in enumerate(itertools.islice(itertools.cycle(source.ids), images)):
        name = hashlib.sha256(f"{at} {old}".encode()).hexdigest()[:12]
        pairs[name + Path(old).suffix] = source.files[old]
    trial = _lay(data, task, target, source=source, pairs=pairs)
    # As many as leave most of the images whole.
    trapped = dict(zip(TRAPS, list(pairs)[: max(1, images // 2)], strict=False))
    for kind, image_id in trapped.items():
        _set(trial, kind, _file(trial, task, image_id, pairs[image_id]), image_id)
    fixed = task.height is not None
    bad = ("cut", "empty", "odd") if fixed else ("cut", "empty")
    corrupt = frozenset(trapped[kind] for kind in bad if kind in trapped)
    return Trial(trial.folder, trial.images, trial.sizes, corrupt)


def _source(data: Path, task: TaskSpec) -> _Source:
    sample = table.read_table(data / task.sample_submission)
    ids = list(dict.fromkeys(image_id for image_id, _ in expected_keys(sample, task)))
    folder = data / task.test_images
    files = sorted(folder.iterdir()) if folder.is_dir() else []
    named = {path.stem: path for path in files if path.suffix.lower() in SUFFIXES}
    named |= {path.name: path for path in files}
    missing = [image_id for image_id in ids if image_id not in named]
    if missing or not ids:
        raise DataError(
            f"{folder} lacks {len(missing)} of {len(ids)} images of {task.sample_submission}",
            hint="fetch the competition again",
        )
    return _Source(ids, named, sample)


def _lay(
    data: Path, task: TaskSpec, target: Path, *, source: _Source, pairs: dict[str, Path]
) -> Trial:
    (target / task.test_images).mkdir(parents=True)
    trial = Trial(target, len(pairs), {}, frozenset())
    for image_id, file in pairs.items():
        link_or_copy(file, _file(trial, task, image_id, file))
        row = index_image(file)
        trial.sizes[image_id] = (row.height, row.width)
    if (data / task.train_csv).is_file():
        link_or_copy(data / task.train_csv, target / task.train_csv)
    _write_sample(trial.sample(task), task, source.table, list(pairs))
    return trial


def _write_sample(path: Path, task: TaskSpec, old: table.Table, ids: Sequence[str]) -> None:
    form = forms.detect(old.header, task, old.path)
    given = dict(form.split(row)[1:] for row in old.rows)
    labels = list(dict.fromkeys(label for _, label in forms.keys(old, task)))
    rows = (form.join(image_id, label, given[label]) for image_id in ids for label in labels)
    table.write_table(path, old.header, rows)


def _file(trial: Trial, task: TaskSpec, image_id: str, source: Path) -> Path:
    has_suffix = Path(image_id).suffix == source.suffix
    return trial.folder / task.test_images / (image_id if has_suffix else image_id + source.suffix)


def _set(trial: Trial, kind: str, file: Path, image_id: str) -> None:
    """Make a trap of an image's file."""
    if kind == "empty":
        _rewrite(file, b"")
        return
    if kind == "cut":
        content = file.read_bytes()
        _rewrite(file, content[: len(content) // 2])
        return
    image = cv2.imread(str(file), cv2.IMREAD_GRAYSCALE)
    assert image is not None  # decoded a moment ago for its size
    if kind == "odd":
        height, width = max(image.shape[0] - _ODD[0], 1), max(image.shape[1] - _ODD[1], 1)
        image = image[:height, :width]
        trial.sizes[image_id] = (height, width)
    elif kind == "colour":
        alpha = file.suffix.lower() == ".png"
        image = cv2.cvtColor(image, cv2.COLOR_GRAY2BGRA if alpha else cv2.COLOR_GRAY2BGR)
    _rewrite(file, cv2.imencode(file.suffix, image)[1].tobytes())


def _rewrite(file: Path, content: bytes) -> None:
    # The file may share its bytes with the workspace's own copy.
    file.unlink()
    file.write_bytes(content)


def link_or_copy(source: Path, target: Path) -> None:
    """Give a file a second name, or copy it where the file system or its owner forbids that."""
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        target.hardlink_to(source.resolve())
    except OSError:
        shutil.copyfile(source, target)

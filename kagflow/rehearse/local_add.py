"""Make a competition of the embedded Kaggle from labelled images: a share becomes its test."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from kagflow.errors import DataError, UsageError
from kagflow.progress import QUIET, Progress
from kagflow.rehearse.facts import CompetitionFacts
from kagflow.rehearse.register import register
from kagflow.rehearse.trial import link_or_copy
from kagflow.task import forms, table
from kagflow.task.folds import make_folds
from kagflow.task.index import ImageRow, build_index
from kagflow.task.labels import read_labels
from kagflow.task.spec import TaskSpec
from kagflow.task.truth import IGNORED

# Near-duplicates and classes are spread over so many parts; a share is some of them.
PARTS = 20


@dataclass(frozen=True)
class Hidden:
    """Say what to hide: which share of the images, drawn by which seed.

    `sealed` keeps the private half out of every score, so that nobody looks at it by the way.
    """

    share: float = 0.3
    seed: int = 0
    sealed: bool = False


@dataclass(frozen=True)
class Added:
    """Count the images of each part, and say where the competition is kept."""

    slug: str
    place: Path
    train: int
    public: int
    private: int


@dataclass(frozen=True)
class _Split:
    train: list[str]
    usage: dict[str, str]

    def half(self, name: str) -> list[str]:
        return [image_id for image_id, usage in self.usage.items() if usage == name]

    def sealed(self) -> dict[str, str]:
        return {name: one if one == "Public" else IGNORED for name, one in self.usage.items()}


def add(
    store_dir: Path,
    facts: CompetitionFacts,
    data: Path,
    *,
    hidden: Hidden = Hidden(),
    progress: Progress = QUIET,
) -> Added:
    """Register `data/{train.csv, train_images/}` with a share of it as the hidden test.

    The share is stratified, keeps near-duplicates together, and half of it (by parts) is public.
    The same data and seed give the same split. Raises UsageError for a share or amount of images
    that can't be split, DataError for files that don't fit each other.
    """
    task = facts.task
    rows = {row.image_id: row for row in build_index(data / task.train_images, progress)}
    sizes = {row.image_id: (row.height, row.width) for row in rows.values()}
    labels = read_labels(data / task.train_csv, task, sizes=sizes)
    split = _split(rows, labels, task, hidden)
    store_dir.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".adding-", dir=store_dir) as temporary:
        folder = Path(temporary)
        _lay(folder, data, task, split)
        usage = split.sealed() if hidden.sealed else split.usage
        _write_solution(folder / "solution.csv", task, labels, rows, usage)
        place = register(store_dir, facts, folder)
    halves = (len(split.half("Public")), len(split.half("Private")))
    return Added(facts.slug, place, len(split.train), *halves)


def _split(
    rows: Mapping[str, ImageRow],
    labels: Mapping[str, Mapping[int, str]],
    task: TaskSpec,
    hidden: Hidden,
) -> _Split:
    half = round(hidden.share * PARTS / 2)
    if not 1 <= half < PARTS / 2:
        low, high = 1 / PARTS, 1 - 1 / PARTS
        raise UsageError(
            f"a holdout of {hidden.share:g}", hint=f"between {low:g} and {high:g}, e.g. 0.3"
        )
    if len(rows) < PARTS:
        raise DataError(f"{len(rows)} images are too few to hide some", hint=f"{PARTS} or more")
    folds = make_folds(rows.values(), labels, task, k=PARTS, seed=hidden.seed)
    # Ties of the greedy split go to the first part, so which parts are hidden is drawn.
    order = np.random.default_rng(hidden.seed).permutation(PARTS).tolist()
    usage = dict.fromkeys(order[:half], "Public") | dict.fromkeys(order[half : 2 * half], "Private")
    chosen = {name: usage[part] for name, (_, part) in sorted(folds.items()) if part in usage}
    return _Split([name for name in sorted(folds) if name not in chosen], chosen)


def _lay(folder: Path, data: Path, task: TaskSpec, split: _Split) -> None:
    images = data / task.train_images
    places = {
        f"public/{task.train_images}": split.train,
        f"public/{task.test_images}": split.half("Public"),
        f"hidden/{task.test_images}": list(split.usage),
    }
    for where, names in places.items():
        for name in names:
            link_or_copy(images / name, folder / where / name)
    labelled = table.read_table(data / task.train_csv)
    form = forms.detect(labelled.header, task, labelled.path)
    kept = set(split.train)
    rows = [row for row in labelled.rows if form.split(row)[0] in kept]
    table.write_table(folder / "public" / task.train_csv, labelled.header, rows)
    header, value = _sample_form(data, task)
    for part, names in (("public", split.half("Public")), ("hidden", list(split.usage))):
        _write_sample(folder / part / task.sample_submission, task, header, value, names)


def _sample_form(data: Path, task: TaskSpec) -> tuple[tuple[str, ...], str]:
    path = data / task.sample_submission
    if path.is_file():
        given = table.read_table(path)
        form = forms.detect(given.header, task, path)
        return given.header, form.split(given.rows[0])[2] if given.rows else ""
    if task.kind == "classification":
        return (task.image_column, task.value_column), task.classes[0]
    return (task.image_column, task.class_column, task.value_column), "1 1"


def _write_sample(
    path: Path, task: TaskSpec, header: tuple[str, ...], value: str, names: Sequence[str]
) -> None:
    form = forms.detect(header, task, path)
    rows = (form.join(name, label, value) for name in names for label in _labels(task))
    table.write_table(path, header, rows)


def _write_solution(
    path: Path,
    task: TaskSpec,
    labels: Mapping[str, Mapping[int, str]],
    rows: Mapping[str, ImageRow],
    usage: Mapping[str, str],
) -> None:
    columns = (task.image_column, *([task.class_column] * (task.kind == "segmentation")))
    header = (*columns, task.value_column, "Usage", "Height", "Width")
    lines = []
    for image_id, part in usage.items():
        row, found = rows[image_id], labels.get(image_id, {})
        tail = (part, row.height, row.width)
        for label in _labels(task):
            name = () if label is None else (label,)
            lines.append((image_id, *name, _value(task, found, label), *tail))
    table.write_table(path, header, lines)


def _labels(task: TaskSpec) -> tuple[str | None, ...]:
    return (None,) if task.kind == "classification" else task.classes


def _value(task: TaskSpec, found: Mapping[int, str], label: str | None) -> str:
    if label is None:
        return " ".join(task.classes[at] for at in sorted(found))
    return found.get(task.classes.index(label), "")

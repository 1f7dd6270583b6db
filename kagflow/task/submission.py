"""Write the file that a competition scores, in the form of its sample submission."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from kagflow.task import forms
from kagflow.task.labels import read_labels
from kagflow.task.table import read_table, write_table

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from kagflow.task.forms import Key
    from kagflow.task.spec import TaskSpec
    from kagflow.task.table import Table


@dataclass(frozen=True)
class Written:
    """Count what a submission holds: its rows, the images of the sample that were never added
    (written as empty), and the added images that the sample does not ask for (left out).
    """

    rows: int
    missing: tuple[str, ...]
    extra: tuple[str, ...]


@dataclass
class Writer:
    """Collect predictions, then write them whole or not at all, as the sample's rows are.

    As a context manager it writes on leaving without an exception.
    """

    path: Path
    spec: TaskSpec
    sample: Path
    _found: dict[str, dict[int, str]] = field(default_factory=dict, init=False)

    def __post_init__(self) -> None:
        table = read_table(self.sample)
        self._form = forms.detect(table.header, self.spec, self.sample)
        self._keys = expected_keys(table, self.spec)

    def add(self, image_id: str, rows: Mapping[int, str]) -> None:
        """Take {class index: run lengths} of an image (classification: the values are "")."""
        self._found[image_id] = dict(rows)

    def close(self) -> Written:
        """Write the file; return what it holds."""
        rows = [
            self._form.join(
                image_id, label, _value(self._found.get(image_id, {}), label, self.spec)
            )
            for image_id, label in self._keys
        ]
        write_table(self.path, self._form.header, rows)
        asked = dict.fromkeys(image_id for image_id, _ in self._keys)
        return Written(
            rows=len(rows),
            missing=tuple(i for i in asked if i not in self._found),
            extra=tuple(i for i in self._found if i not in asked),
        )

    def __enter__(self) -> Writer:
        """Start collecting."""
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        """Write unless an exception passes."""
        if kind is None:
            self.close()


def write(
    path: Path, predictions: Mapping[str, Mapping[int, str]], spec: TaskSpec, sample: Path
) -> Written:
    """Write {image id: {class index: run lengths}} in the sample's form, order and ids."""
    writer = Writer(path, spec, sample)
    for image_id, rows in predictions.items():
        writer.add(image_id, rows)
    return writer.close()


def write_empty(path: Path, spec: TaskSpec, sample: Path) -> Written:
    """Write the submission that predicts nothing; it is what the floor of a score means."""
    return write(path, {}, spec, sample)


def read_submission(csv: Path, spec: TaskSpec) -> dict[str, dict[int, str]]:
    """Return {image id: {class index: run lengths}}, {} for an image with nothing predicted.

    Raises DataError with file and line at the first bad row; `kagflow.task.check` lists them all.
    """
    return read_labels(csv, spec)


def expected_keys(sample: Table, spec: TaskSpec) -> list[Key]:
    """Return the (image id, class label) of every row to write, in the sample's order.

    A sample of masks that lacks some class of an image, or names a placeholder class, stands for
    all classes of its images.
    """
    keys = list(forms.keys(sample, spec))
    if spec.kind == "classification":
        return keys
    images = dict.fromkeys(image_id for image_id, _ in keys)
    whole: list[Key] = [(image_id, label) for image_id in images for label in spec.classes]
    return keys if set(keys) == set(whole) else whole


def _value(found: Mapping[int, str], label: str | None, spec: TaskSpec) -> str:
    if label is None:
        return " ".join(spec.classes[at] for at in sorted(found))
    return found.get(spec.classes.index(label), "")

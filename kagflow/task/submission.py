"""Write and check the file that a competition scores, in the form of its sample submission."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from kagflow.errors import DataError
from kagflow.task import forms
from kagflow.task.labels import read_labels
from kagflow.task.table import BOM, read_table, write_table

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from kagflow.task.forms import Form, Key
    from kagflow.task.spec import TaskSpec
    from kagflow.task.table import Table


@dataclass(frozen=True)
class Fault:
    """Say what is wrong on a line of a CSV; `row` counts from 1, the header, and 0 is the file."""

    row: int
    what: str


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

    Raises DataError with file and line at the first bad row; `check_submission` lists them all.
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


def check_submission(
    path: Path,
    spec: TaskSpec,
    sample: Path,
    sizes: Mapping[str, tuple[int, int]] | None = None,
) -> list[Fault]:
    """List everything wrong with a submission; [] where it is fit to be sent.

    `sizes` gives (height, width) by image id for the check that masks stay inside. Raises
    DataError only where the sample itself cannot be read.
    """
    wanted = read_table(sample)
    keys = expected_keys(wanted, spec)
    try:
        table = read_table(path)
        form = forms.detect(table.header, spec, path)
    except DataError as fault:
        return [*_byte_faults(path), Fault(0, str(fault))]
    faults = [*_byte_faults(path), *_header_faults(table, wanted)]
    faults += _row_faults(table, form, sizes)
    return faults + list(_key_faults(table, form, keys))


def _value(found: Mapping[int, str], label: str | None, spec: TaskSpec) -> str:
    if label is None:
        return " ".join(spec.classes[at] for at in sorted(found))
    return found.get(spec.classes.index(label), "")


def _byte_faults(path: Path) -> Iterator[Fault]:
    content = path.read_bytes() if path.is_file() else b""
    if content.startswith(BOM):
        yield Fault(1, "starts with a byte order mark")
    if b"\r" in content:
        yield Fault(content.split(b"\r")[0].count(b"\n") + 1, "lines end with CRLF, not LF")


def _header_faults(table: Table, wanted: Table) -> Iterator[Fault]:
    if table.header != wanted.header:
        yield Fault(1, f"columns {','.join(table.header)} are not {','.join(wanted.header)}")


def _row_faults(
    table: Table, form: Form, sizes: Mapping[str, tuple[int, int]] | None
) -> Iterator[Fault]:
    for line, row in enumerate(table.rows, start=2):
        try:
            form.read(row, sizes)
        except DataError as fault:
            yield Fault(line, str(fault))


def _key_faults(table: Table, form: Form, wanted: list[Key]) -> Iterator[Fault]:
    given = [form.split(row)[:2] for row in table.rows]
    asked = set(wanted)
    seen: Counter[Key] = Counter()
    for line, key in enumerate(given, start=2):
        name = " class ".join(filter(None, key))
        seen[key] += 1
        if key not in asked:
            yield Fault(line, f"{name} is not asked for")
        elif seen[key] > 1:
            yield Fault(line, f"{name} comes twice")
    missing = [key for key in wanted if key not in seen]
    if missing:
        name = " class ".join(filter(None, missing[0]))
        yield Fault(0, f"{len(missing)} rows are missing, the first is {name}")
    elif len(given) == len(wanted) and given != wanted and set(given) == asked:
        line = next(n for n, (a, b) in enumerate(zip(given, wanted, strict=True), 2) if a != b)
        yield Fault(line, "rows are not in the order of the sample")

"""List everything wrong with a submission, by row.

The rules: the very bytes (UTF-8, no byte order mark, lines end with LF), the sample's columns,
every row that the sample asks for, once and in its order, classes and run lengths.
"""

from __future__ import annotations

from itertools import islice
from typing import TYPE_CHECKING

from kagflow.errors import DataError
from kagflow.task import forms, rle
from kagflow.task.loose import Fault, Loose, read_loose
from kagflow.task.submission import expected_keys
from kagflow.task.table import read_table

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from kagflow.task.forms import Form, Key
    from kagflow.task.spec import TaskSpec

    Sizes = Mapping[str, tuple[int, int]]
    Cells = dict[str, str]

# Faults told of one mask; a mask written in another order has one in every pair.
PAIRS_TOLD = 20
_BLANK = ("",)


def check_submission(
    path: Path, spec: TaskSpec, sample: Path, sizes: Sizes | None = None
) -> list[Fault]:
    """List everything wrong with a submission, by row; [] where it is fit to be sent.

    `sizes` gives (height, width) by image id for the check that masks stay inside; without it
    the competition's one size is meant, where it has one. Raises DataError only where the sample
    itself cannot be read.
    """
    wanted = read_table(sample)
    keys = expected_keys(wanted, spec)
    loose = read_loose(path)
    if not loose.header:
        return _sorted(list(loose.faults))
    try:
        form = forms.detect(loose.header, spec, path)
    except DataError as fault:
        unread = Fault(1, "header", f"{fault.message}; the rows were not checked")
        return _sorted([*loose.faults, unread])
    faults = [*loose.faults, *_header_faults(loose, wanted.header)]
    rows = [
        (line, dict(zip(form.header, cells, strict=False)))
        for line, cells in loose.rows
        if cells != _BLANK
    ]
    faults += _cell_faults(loose)
    for line, cell in rows:
        faults += [Fault(line, *told) for told in _value_faults(form, cell, sizes)]
    return _sorted([*faults, *_key_faults(form, rows, keys)])


def _header_faults(loose: Loose, wanted: tuple[str, ...]) -> Iterator[Fault]:
    if loose.header != wanted:
        named, right = (",".join(header)[:200] for header in (loose.header, wanted))
        yield Fault(1, "header", f"columns {named} are not {right}")


def _cell_faults(loose: Loose) -> Iterator[Fault]:
    for line, cells in loose.rows:
        if cells == _BLANK:
            yield Fault(line, "cells", "is blank")
        elif len(cells) != len(loose.header):
            yield Fault(line, "cells", f"{len(cells)} cells, the header has {len(loose.header)}")


def _value_faults(form: Form, cell: Cells, sizes: Sizes | None) -> Iterator[tuple[str, str]]:
    spec, value = form.spec, cell.get(form.spec.value_column, "")
    if spec.kind == "classification":
        yield from (("class", what) for what in _label_faults(spec, value))
        return
    key = form.key(cell)
    if key is not None and key[1] not in spec.classes:
        known = ", ".join(spec.classes)
        yield "class", f"{forms.name(key)}: unknown class {key[1]!r}; the classes are {known}"
    size = _size(key, spec, sizes)
    found = rle.faults(value, pixels=size[0] * size[1] if size else None)
    for what in islice(found, PAIRS_TOLD):
        yield "rle", f"{forms.name(key)}, {what}"
    if more := sum(1 for _ in found):
        yield "rle", f"{forms.name(key)}: {more} more such faults"


def _size(key: Key | None, spec: TaskSpec, sizes: Sizes | None) -> tuple[int, int] | None:
    if sizes is not None:
        return sizes.get(key[0]) if key else None
    return (spec.height, spec.width) if spec.height and spec.width else None


def _label_faults(spec: TaskSpec, value: str) -> Iterator[str]:
    labels = value.split(" ") if value else []
    known = ", ".join(spec.classes)
    for at, label in enumerate(labels):
        if label not in spec.classes:
            yield f"unknown class {label!r}; the classes are {known}"
        elif label in labels[:at]:
            yield f"class {label} is named twice"
    if spec.exclusive and len(labels) > 1:
        yield f"{len(labels)} classes where an image has one"


def _key_faults(form: Form, rows: list[tuple[int, Cells]], wanted: list[Key]) -> Iterator[Fault]:
    rank = {key: at for at, key in enumerate(wanted)}
    first: dict[Key, int] = {}
    for line, cell in rows:
        key = form.key(cell)
        if key is None:
            continue
        if key not in rank:
            # A class that nobody knows was told already.
            if key[1] is None or key[1] in form.spec.classes:
                yield Fault(line, "extra", f"{forms.name(key)} is not asked for")
        elif key in first:
            yield Fault(line, "twice", f"{forms.name(key)} stands in row {first[key]} already")
        else:
            first[key] = line
    for key in wanted:
        if key not in first:
            yield Fault(0, "missing", f"{forms.name(key)} is missing")
    yield from _order_faults(rank, first)


def _order_faults(rank: Mapping[Key, int], first: Mapping[Key, int]) -> Iterator[Fault]:
    last = -1
    for key, line in first.items():
        if rank[key] < last:
            yield Fault(line, "order", f"{forms.name(key)} stands later than in the sample")
            return
        last = rank[key]


def _sorted(faults: list[Fault]) -> list[Fault]:
    """Put faults in the order of the file, what is not in it last."""
    return sorted(faults, key=lambda fault: (fault.kind == "missing", fault.row))

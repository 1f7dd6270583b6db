"""Name the pieces of a file that is too large to be sent in one go; travels to Kaggle."""

from __future__ import annotations

import re
from pathlib import Path

from kagflow.errors import DataError

_MARK = re.compile(r"\.(\d+)of(\d+)(?=\.[^.]+$)")


def piece_name(name: str, number: int, count: int) -> str:
    """Return the name of one of `count` pieces, from 1: a.safetensors is a.1of2.safetensors."""
    path = Path(name)
    return f"{path.stem}.{number}of{count}{path.suffix}"


def whole_name(name: str) -> str:
    """Return the name of the file that a piece is part of; any other name stays as it is."""
    return _MARK.sub("", name)


def pieces(path: Path) -> list[Path]:
    """Return a file itself, or all its pieces in order.

    Raises DataError where neither is there whole.
    """
    if path.is_file():
        return [path]
    counts: set[int] = set()
    for file in path.parent.glob(f"*{path.suffix}") if path.parent.is_dir() else ():
        mark = _MARK.search(file.name)
        if mark and whole_name(file.name) == path.name:
            counts.add(int(mark[2]))
    for count in sorted(counts):
        whole = [path.with_name(piece_name(path.name, at + 1, count)) for at in range(count)]
        if all(file.is_file() for file in whole):
            return whole
    what = f"some pieces of {path} are missing" if counts else f"{path} is missing"
    raise DataError(what, hint="make or fetch it anew")


def there(path: Path) -> bool:
    """Tell whether a file is there, itself or in all its pieces."""
    try:
        return bool(pieces(path))
    except DataError:
        return False

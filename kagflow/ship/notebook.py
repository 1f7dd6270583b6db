"""A kernel's script as a notebook: a cell with its title, a cell with the code, nothing else."""

from __future__ import annotations

import json
from typing import Any

# The newest form without cell ids, which would have to be made up.
_FORMAT = {"nbformat": 4, "nbformat_minor": 4}
_KERNEL = {"display_name": "Python 3", "language": "python", "name": "python3"}


def wrap(title: str, code: str) -> str:
    """Return the JSON of a notebook that runs `code`; the same text each time."""
    cells = [
        {"cell_type": "markdown", "metadata": {}, "source": f"# {title}"},
        {
            "cell_type": "code",
            "execution_count": None,
            "metadata": {},
            "outputs": [],
            "source": code.rstrip(),
        },
    ]
    metadata = {"kernelspec": _KERNEL, "language_info": {"name": "python"}}
    return json.dumps({"cells": cells, "metadata": metadata, **_FORMAT}, indent=1) + "\n"


def append(text: str, line: str) -> str:
    """Return a script, or a notebook's JSON, whose code ends in one more line."""
    read = _cells(text)
    if read is None:
        return f"{text.rstrip()}\n{line}\n"
    (_, title), (_, code) = read
    return wrap(title.removeprefix("# "), f"{code.rstrip()}\n{line}")


def same(text: str, other: str) -> bool:
    """Tell whether two kernels say the same, however a notebook's JSON is laid out."""
    cells = _cells(text)
    if cells is None:
        return text.strip() == other.strip()
    return cells == _cells(other)


def _cells(text: str) -> list[tuple[str, str]] | None:
    """Return the (kind, source) of a notebook's cells, None for a script."""
    try:
        cells: list[dict[str, Any]] = json.loads(text)["cells"]
        return [(cell["cell_type"], "".join(cell["source"]).strip()) for cell in cells]
    except (ValueError, KeyError, TypeError):
        return None

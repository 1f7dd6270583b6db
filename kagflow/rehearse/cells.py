"""The Python that a pushed kernel runs, whether it came as a script or as a notebook."""

from __future__ import annotations

import json


def code_of(text: str, kind: str) -> str:
    """Return the source; a notebook's code cells are put one after the other."""
    if kind != "notebook":
        return text
    cells = [cell for cell in json.loads(text)["cells"] if cell["cell_type"] == "code"]
    return "\n\n".join("".join(cell["source"]) for cell in cells) + "\n"

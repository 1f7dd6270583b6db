"""Remember what packs took on Kaggle's machines and here: one JSON file that a person can read.

It lies in the profile's own client folder, so that the embedded Kaggle's figures never become
Kaggle's own. A later measurement of the same kernel version replaces the earlier one.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from kagflow import durable
from kagflow.errors import DataError
from kagflow.task.costs import Costs, Pair

FILE = "costs.json"


def read(state: Path, accelerator: str | None = None) -> list[Pair]:
    """Return what was measured on an accelerator, or on all of them, oldest first.

    Raises DataError for a file that can't be read.
    """
    path = state / FILE
    try:
        rows = json.loads(path.read_text())["measured"]
        pairs = [_pair(row) for row in rows]
    except FileNotFoundError:
        return []
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise DataError(f"{path} can't be read: {error!r}", hint=f"rm {path}") from None
    return [pair for pair in pairs if accelerator in {None, pair.accelerator}]


def note(state: Path, pair: Pair) -> None:
    """Add a measurement."""
    kept = [one for one in read(state) if one.subject != pair.subject]
    path = state / FILE
    path.parent.mkdir(parents=True, exist_ok=True)
    durable.write_json(path, {"measured": [asdict(one) for one in [*kept, pair]]})


def _pair(row: Mapping[str, Any]) -> Pair:
    return Pair(
        **{**row, "there": Costs.from_dict(row["there"]), "here": Costs.from_dict(row["here"])}
    )

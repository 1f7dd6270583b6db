"""What the embedded Kaggle knows about one competition, beside its files."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from kagflow import durable
from kagflow.errors import DataError
from kagflow.task.spec import TaskSpec

# A competition of this host is generated look-alike data, never somebody's real images.
GENERATED_HOST = "kagflow-mini"


@dataclass(frozen=True)
class CompetitionFacts:
    """Describe a competition of the embedded Kaggle.

    `rerun` is "hidden" (the kernel runs again on the hidden test), "none" (the saved output is
    what is scored) or "unknown" (played as hidden); `deadline` is an ISO date or date-time, UTC.
    """

    slug: str
    title: str
    host: str
    task: TaskSpec
    rerun: str
    inference_minutes: float
    memory_gb: float
    daily_submissions: int
    deadline: str

    @property
    def scores_saved_output(self) -> bool:
        """Tell whether the saved output is what is scored, with no second run."""
        return self.rerun == "none"

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON values."""
        return {**asdict(self), "task": self.task.to_dict()}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> CompetitionFacts:
        """Build from what `to_dict` gave; raise DataError for a missing or unknown key."""
        known = {field.name for field in fields(cls)}
        if set(values) != known:
            wrong = ", ".join(sorted(set(values) ^ known))
            raise DataError(f"competition facts with missing or unknown keys: {wrong}")
        return cls(**{**values, "task": TaskSpec.from_dict(values["task"])})


def read(path: Path) -> CompetitionFacts:
    """Read facts.json; raise DataError when it is missing or damaged."""
    try:
        values = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: no readable competition facts: {error}") from None
    return CompetitionFacts.from_dict(values)


def write(path: Path, facts: CompetitionFacts) -> None:
    """Write facts.json, whole or not at all."""
    durable.write_json(path, facts.to_dict())

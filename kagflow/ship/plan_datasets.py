"""Say which dataset versions hold a pack's two halves, or would come to hold them."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from kagflow.ship import assumptions
from kagflow.ship.pack import Pack
from kagflow.ship.parts import Part
from kagflow.ship.remote import Remote
from kagflow.ship.remote_datasets import DatasetPush


@dataclass(frozen=True)
class DatasetPlan:
    """Say what a dataset holds, and the version that is there or would come to be."""

    part: str
    push: DatasetPush
    version: int
    there: bool
    bytes: int
    files: int

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON values."""
        return {
            "part": self.part,
            "ref": self.push.ref,
            "version": self.version,
            "there": self.there,
            "bytes": self.bytes,
            "files": self.files,
        }


def dataset_ref(account: str, competition: str, part: str) -> str:
    """Return the dataset that holds one half of a competition's packs, a version for each."""
    return f"{account}/kagflow-{slugify(competition)}-{part}"


def plan_datasets(remote: Remote, competition: str, pack: Pack) -> tuple[DatasetPlan, ...]:
    """Return the plan for each half of a pack: asks Kaggle, changes nothing."""
    return tuple(plan_part(remote, competition, part) for part in pack.parts)


def slugify(competition: str) -> str:
    """Return a competition's name as a part of a slug, short enough for what is put around it."""
    # Kaggle takes 6 to 50 letters, and `kagflow-` and `-notebook` need 17.
    return re.sub(r"[^a-z0-9]+", "-", competition.lower()).strip("-")[:33].strip("-")


def plan_part(remote: Remote, competition: str, part: Part) -> DatasetPlan:
    """Return the plan for one part: asks Kaggle, changes nothing."""
    ref = dataset_ref(remote.account(), competition, part.name)
    title = f"kagflow {slugify(competition)} {part.name}"
    mark = f"kagflow {part.name} {part.hash}"
    known = remote.dataset(ref)
    there = known.version_with(mark) if known else None
    honoured = assumptions.value(remote.state, "version_pin_honoured")
    if known and there and there != known.current and not honoured:
        # A kernel may get the newest version whatever it asks for: let that be ours.
        mark, there = f"{mark} after {known.current}", None
    push = DatasetPush(ref, title, part.path, mark)
    version = there or (known.current if known else 0) + 1
    return DatasetPlan(part.name, push, version, there is not None, part.bytes, len(part.files))

"""What a rehearsal proved about a pack, what it could not, and the file that keeps it."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from kagflow import durable
from kagflow.errors import DataError

SCHEMA = 1
Verdict = Literal["green", "yellow", "red"]


@dataclass(frozen=True)
class Run:
    """Describe one run of the kernel; seconds are on the wall clock, here."""

    mode: Literal["save", "rerun"]
    layout: str
    images: int
    predicted: int
    nonempty: int
    seconds: float
    peak_bytes: int
    returncode: int
    failure: str = ""
    sentence: str = ""


@dataclass(frozen=True)
class Receipt:
    """Keep a rehearsal's result.

    `failure` is one of the names that Kaggle gives a failed submission, `sentence` says why;
    both are "" unless the verdict is red. `projected_minutes` covers `projected_images` images:
    as likely less as more, `projected_p95` what 95 of 100 runs stay below, where the `accelerator`
    is `calibrated`; else everything at this machine's pace, `projected_least` the work around the
    models alone. `costs` (task.costs) are what it took here. `unproved` lists
    what differs here from the image, `log_tail` the last lines of the failing run. `not_run` is
    the number of images of the hidden test's size that no run here reached.
    """

    pack: str
    competition: str
    made: str
    verdict: Verdict
    layer: str
    network_blocked: bool
    home_hidden: bool
    input_read_only: bool
    runs: tuple[Run, ...]
    device: str = ""
    seconds_per_image: float | None = None
    projected_images: int | None = None
    projected_minutes: float | None = None
    limit_minutes: float | None = None
    projected_p95: float | None = None
    projected_least: float | None = None
    calibrated: bool = False
    accelerator: str = ""
    time_note: str = ""
    costs: dict[str, Any] | None = None
    not_run: int = 0
    failure: str = ""
    sentence: str = ""
    warnings: tuple[str, ...] = ()
    unproved: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    log_tail: tuple[str, ...] = ()
    schema: int = SCHEMA

    @property
    def peak_bytes(self) -> int:
        """Return the largest memory of any run."""
        return max((run.peak_bytes for run in self.runs), default=0)

    @property
    def where(self) -> str:
        """Name the machine that minutes are projected for."""
        names = {"": "Kaggle's machine", "None": "Kaggle's CPU"}
        return names.get(self.accelerator, self.accelerator)

    def write(self, path: Path) -> None:
        """Write the receipt as JSON."""
        durable.write_json(path, asdict(self))


def read_receipt(path: Path) -> Receipt:
    """Read what `Receipt.write` wrote; raises DataError when it is damaged or of another kind."""
    try:
        values = json.loads(path.read_text())
        runs = tuple(Run(**run) for run in values.pop("runs"))
        lists = {name: tuple(value) for name, value in values.items() if isinstance(value, list)}
        return Receipt(**{**values, **lists, "runs": runs})
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise DataError(f"{path} is no receipt: {error!r}", hint="rehearse again") from None

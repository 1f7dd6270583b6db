"""Everything that the page shows, as plain values."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kagflow.learn.assess import Worth
from kagflow.learn.evaluate import RunRow
from kagflow.report.curves import Curve
from kagflow.report.doubts import Doubt, Twins
from kagflow.report.errors import Cost
from kagflow.report.gallery import Card
from kagflow.report.reliability import Gate
from kagflow.report.spent import Hours, Submitted
from kagflow.task.spec import TaskSpec


@dataclass(frozen=True)
class Missing:
    """Say what a section lacks, and the command that makes it ("" where there is none)."""

    what: str
    command: str = ""


@dataclass(frozen=True)
class Place:
    """Where the facts lie; `command` writes a kagflow command as it must be typed here."""

    spec: TaskSpec
    data: Path
    runs: Path
    ensemble: Mapping[str, Any] | None
    images_file: Path | None
    command: Callable[[str], str]
    submissions: Sequence[Mapping[str, Any]] = ()
    hours: Sequence[Mapping[str, Any]] = ()


@dataclass(frozen=True)
class Limits:
    """At most how many images the gallery shows, and how many megabytes the page may take."""

    images: int = 300
    megabytes: float = 24.0


@dataclass(frozen=True)
class Member:
    """One member of the ensemble: how it counts, what it costs, what it is worth.

    `worth` is what the ensemble loses without it, `alone` what it scores by itself.
    """

    run: str
    predicts: str
    folds: str
    tta: str
    weight: float | None
    seconds: float | None
    worth: float | None
    alone: Worth


@dataclass(frozen=True)
class Members:
    """The members, and how alike those of one kind are image by image."""

    rows: tuple[Member, ...]
    names: tuple[str, ...]
    correlation: tuple[tuple[float | None, ...], ...]
    images: int


@dataclass(frozen=True)
class Facts:
    """Everything on the page; a section that cannot be made is Missing and says why.

    `there` counts the images that hold each class; `sample` is how many images curves and members
    were to be of, and how many there are.
    """

    labels: tuple[str, ...]
    there: tuple[int, ...]
    sample: tuple[int, int]
    worth: Worth | Missing
    costs: Sequence[Sequence[Cost]] | Missing
    runs: Sequence[RunRow]
    submitted: Submitted | Missing
    members: Members | Missing
    curves: Sequence[Curve] | Missing
    gates: Sequence[Gate] | Missing
    hours: Hours | Missing
    cards: Sequence[Card] | Missing
    doubts: Sequence[Doubt] | Missing
    twins: Sequence[Twins]

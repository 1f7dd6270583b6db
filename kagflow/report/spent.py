"""What was submitted, and what the whole cost: rows of the history and of the ledger."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from kagflow.report import charts

Rows = Sequence[Mapping[str, Any]]


@dataclass(frozen=True)
class Submitted:
    """The submissions with CV and leaderboard; `gap` is the mean of public - CV where both are."""

    rows: Rows
    svg: str | None
    gap: float | None
    compared: int


@dataclass(frozen=True)
class Hours:
    """Hours by kind of work, and by what they were spent on, dearest first."""

    total: float
    kinds: tuple[tuple[str, float], ...]
    subjects: tuple[tuple[str, str, str, float], ...]
    open: int


def submitted(rows: Rows) -> Submitted:
    """Set CV and leaderboard side by side; a single fold's CV stands in where nothing better is."""
    told = [dict(row) | {"cv": _cv(row)} for row in rows]
    pairs = [(row["cv"], row["public"], row["private"]) for row in told if row["cv"] is not None]
    public = [(cv, score) for cv, score, _ in pairs if score is not None]
    private = [(cv, score) for cv, _, score in pairs if score is not None]
    gap = float(np.mean([score - cv for cv, score in public])) if public else None
    return Submitted(told, _scatter(public, private), gap, len(public))


def hours(rows: Rows) -> Hours:
    """Sum the ledger's seconds by kind and by subject; stretches that still run count nothing."""
    kinds: dict[str, float] = {}
    subjects: dict[tuple[str, str, str], float] = {}
    for row in rows:
        spent = float(row["seconds"] or 0) / 3600
        kinds[row["kind"]] = kinds.get(row["kind"], 0.0) + spent
        key = (str(row["subject"]), str(row["kind"]), str(row["place"]))
        subjects[key] = subjects.get(key, 0.0) + spent
    ordered = sorted(subjects.items(), key=lambda item: (-item[1], item[0]))
    return Hours(
        total=sum(kinds.values()),
        kinds=tuple(sorted(kinds.items(), key=lambda item: (-item[1], item[0]))),
        subjects=tuple((*key, spent) for key, spent in ordered),
        open=sum(row["ended"] is None for row in rows),
    )


def _cv(row: Mapping[str, Any]) -> float | None:
    best = row["cv_crossfitted"]
    best = row["cv_naive"] if best is None else best
    return None if best is None else float(best)


def _scatter(
    public: Sequence[tuple[float, float]], private: Sequence[tuple[float, float]]
) -> str | None:
    if not public:
        return None
    both = [value for pair in (*public, *private) for value in pair]
    room = max((max(both) - min(both)) * 0.1, 0.002)
    edge = (min(both) - room, max(both) + room)
    lines = [charts.Line("public", *_columns(public), charts.BLUE, dots=[36] * len(public))]
    if private:
        spots = [36.0] * len(private)
        lines.append(charts.Line("private", *_columns(private), charts.ORANGE, dots=spots))
    lines.append(charts.Line("equal", edge, edge, charts.FAINT, dashed=True))
    return charts.plot("lb", lines, charts.Axes("CV", "leaderboard", edge, edge))


def _columns(pairs: Sequence[tuple[float, float]]) -> tuple[list[float], list[float]]:
    return [cv for cv, _ in pairs], [score for _, score in pairs]

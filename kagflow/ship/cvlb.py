"""Draw the line between own and public scores, and say which submissions lie off it.

The fit is Theil and Sen's: the slope is the median of all pairs' slopes, so that a third of the
submissions may be odd without moving it.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from statistics import median
from typing import Any

from kagflow.ship.records import SubmissionRow

METHOD = "Theil-Sen"
LEAST = 3  # submissions that make a line
ENOUGH = 5  # submissions among which one can be odd
OFF = 3.0  # robust standard deviations beyond which one is
GAUSS = 1.4826  # median absolute deviations in a standard deviation
FINEST = 1e-5  # scores are told to five places


@dataclass(frozen=True)
class Point:
    """Hold one scored submission; `off` is how far above the line it is, in robust deviations."""

    ref: int | None
    cv: float
    public: float
    residual: float
    off: float
    outlier: bool


@dataclass(frozen=True)
class Line:
    """Hold public = intercept + slope x CV, its spread (one robust deviation) and its points."""

    slope: float
    intercept: float
    spread: float
    points: tuple[Point, ...]

    @property
    def outliers(self) -> tuple[Point, ...]:
        """The submissions that lie off the line."""
        return tuple(point for point in self.points if point.outlier)

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON values."""
        return {
            "method": METHOD,
            "slope": self.slope,
            "intercept": self.intercept,
            "spread": self.spread,
            "submissions": len(self.points),
            "outliers": [
                {"ref": one.ref, "cv": one.cv, "public": one.public, "residual": one.residual}
                for one in self.outliers
            ],
        }


def own_score(row: SubmissionRow) -> float | None:
    """Return a submission's own score: cross-fitted where it is known, else naive."""
    return row.cv_naive if row.cv_crossfitted is None else row.cv_crossfitted


def fit(rows: Iterable[SubmissionRow]) -> Line | None:
    """Return the line through one competition's scored submissions, each pack once.

    None where fewer than three have both scores, or all have the same own score.
    """
    from scipy.stats import theilslopes

    scored = {row.pack: row for row in rows if row.status == "scored"}
    pairs = [
        (row.ref, cv, row.public)
        for row in scored.values()
        if (cv := own_score(row)) is not None and row.public is not None
    ]
    if len(pairs) < LEAST or len({cv for _, cv, _ in pairs}) < 2:
        return None
    slope = float(theilslopes([public for *_, public in pairs], [cv for _, cv, _ in pairs])[0])
    # Not through the medians of both: an odd submission would shift the line against the rest.
    intercept = median(public - slope * cv for _, cv, public in pairs)
    residuals = [public - intercept - slope * cv for _, cv, public in pairs]
    spread = GAUSS * median(map(abs, residuals))
    points = []
    for (ref, cv, public), residual in zip(pairs, residuals, strict=True):
        off = residual / max(spread, FINEST)
        outlier = len(pairs) >= ENOUGH and abs(off) > OFF
        points.append(Point(ref, cv, public, residual, off, outlier))
    return Line(slope, intercept, spread, tuple(points))

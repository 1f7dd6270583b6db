"""Accelerator hours as Kaggle counts them: by week, saved runs only."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from kagflow.rehearse.store import OPEN, Store


def allowed_hours(store: Store, accelerator: str) -> float | None:
    """Return an accelerator's weekly allowance; None for CPU runs, which have none."""
    settings = store.settings
    return {"gpu": settings.gpu_hours, "tpu": settings.tpu_hours}.get(accelerator)


def accelerator_of(request: dict[str, Any]) -> str:
    """Return "gpu", "tpu" or "none" for a saved push."""
    shape = str(request.get("machineShape") or "").lower()
    if shape.startswith("tpu") or request.get("enableTpu"):
        return "tpu"
    return "gpu" if shape.startswith("nvidia") or request.get("enableGpu") else "none"


def week_start(moment: datetime, weekday: int = 5) -> datetime:
    """Return the 00:00 UTC at or before a moment when the weekly quota renews: on Saturdays."""
    day = moment.astimezone(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    return day - timedelta(days=(day.weekday() - weekday) % 7)


def quota_used(store: Store, accelerator: str) -> tuple[float, float]:
    """Return the seconds used since the week began, and those held by runs under way.

    Reruns of submissions count only where the settings say so: Kaggle is widely believed not to
    bill them. What ended within `quota_lag_s` does not show yet.
    """
    settings, moment = store.settings, datetime.now(UTC)
    since = _text(week_start(moment, settings.quota_weekday))
    shown = _text(moment - timedelta(seconds=settings.quota_lag_s))
    kinds = ("save", "rerun") if settings.rerun_billed else ("save", "save")
    used = store.row(
        "SELECT COALESCE(SUM(seconds), 0) AS s FROM session WHERE kind IN (?, ?) "
        "AND accelerator = ? AND created >= ? AND finished <= ?",
        (*kinds, accelerator, since, shown),
    )
    held = store.row(
        "SELECT COALESCE(SUM(limit_s), 0) AS s FROM session WHERE kind IN (?, ?) "
        "AND accelerator = ? AND status IN (?, ?)",
        (*kinds, accelerator, *OPEN),
    )
    assert used is not None
    assert held is not None
    return float(used["s"]), float(held["s"])


def _text(moment: datetime) -> str:
    return moment.replace(tzinfo=None).isoformat(timespec="milliseconds")

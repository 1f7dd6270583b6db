"""Accelerator hours as Kaggle counts them: by week, saved runs only."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from kagflow.rehearse.store import OPEN, Store

# Weekly allowances in hours (mid 2026); the week starts on Saturday, 00:00 UTC.
QUOTA_HOURS = {"gpu": 30.0, "tpu": 20.0}


def accelerator_of(request: dict[str, Any]) -> str:
    """Return "gpu", "tpu" or "none" for a saved push."""
    shape = str(request.get("machineShape") or "").lower()
    if shape.startswith("tpu") or request.get("enableTpu"):
        return "tpu"
    return "gpu" if shape.startswith("nvidia") or request.get("enableGpu") else "none"


def week_start(moment: datetime) -> datetime:
    """Return the Saturday 00:00 UTC at or before a moment, when Kaggle's weekly quota renews."""
    day = moment.astimezone(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    return day - timedelta(days=(day.weekday() - 5) % 7)


def quota_used(store: Store, accelerator: str) -> tuple[float, float]:
    """Return the seconds used since the week began, and those held by saved runs under way.

    Reruns of submissions are not counted: Kaggle is widely believed not to bill them.
    """
    since = week_start(datetime.now(UTC)).replace(tzinfo=None).isoformat(timespec="milliseconds")
    where = "kind = 'save' AND accelerator = ?"
    used = store.row(
        f"SELECT COALESCE(SUM(seconds), 0) AS s FROM session WHERE {where} AND created >= ?",  # noqa: S608
        (accelerator, since),
    )
    held = store.row(
        f"SELECT COALESCE(SUM(limit_s), 0) AS s FROM session WHERE {where} AND status IN (?, ?)",  # noqa: S608
        (accelerator, *OPEN),
    )
    assert used is not None
    assert held is not None
    return float(used["s"]), float(held["s"])

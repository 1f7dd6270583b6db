"""What Kaggle answers, as frozen values. Times are aware UTC, durations seconds."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from kagflow.redaction import redact

UNKNOWN = "UNKNOWN"
DEAD = frozenset({"FAILED", "DELETED"})  # states of a dataset version that never becomes ready


@dataclass(frozen=True)
class CompetitionInfo:
    """Describe a competition as its page does."""

    slug: str
    title: str
    url: str
    host: str
    metric: str
    entered: bool
    kernels_only: bool
    closed: bool
    daily_submissions: int
    deadline: datetime | None


@dataclass(frozen=True)
class RemoteFile:
    """Name one file and its size in bytes; None where the server does not tell."""

    name: str
    size: int | None


@dataclass(frozen=True)
class Downloaded:
    """Say what a finished download is; `served` is the name that its link ends in."""

    path: Path
    size: int
    validator: str
    served: str = ""


@dataclass(frozen=True)
class DatasetVersion:
    """Name one version of a dataset by its notes."""

    number: int
    notes: str
    status: str


@dataclass(frozen=True)
class DatasetInfo:
    """Describe a dataset and its versions."""

    ref: str
    description: str
    current: int
    versions: tuple[DatasetVersion, ...]

    def version_with(self, mark: str) -> int | None:
        """Return the newest version whose notes carry `mark` (version 1: or the description).

        One that Kaggle could not process does not count: it is sent again.
        """
        dead = {version.number for version in self.versions if version.status.upper() in DEAD}
        marked = [version.number for version in self.versions if mark in version.notes]
        found = [number for number in marked if number not in dead]
        if not found and self.current == 1 and mark in self.description and 1 not in dead:
            return 1
        return max(found, default=None)


@dataclass(frozen=True)
class KernelPush:
    """Say everything about a kernel version; the internet is always off, the kernel private.

    `kernels` are those whose newest output it mounts.
    """

    ref: str
    title: str
    text: str
    datasets: tuple[str, ...]
    competition: str
    machine_shape: str
    timeout_s: int
    language: str = "python"
    kernel_type: str = "script"
    docker_image: str = ""
    kernels: tuple[str, ...] = ()


@dataclass(frozen=True)
class Pushed:
    """Name the kernel version that a push made."""

    ref: str
    version: int
    url: str


@dataclass(frozen=True)
class KernelStatus:
    """Hold a session's status name as sent; UNKNOWN where none or a new one came."""

    name: str
    message: str

    @property
    def complete(self) -> bool:
        """Tell whether the version ran to its end."""
        return self.name == "COMPLETE"

    @property
    def failed(self) -> bool:
        """Tell whether the version ended without completing; time-limit kills are cancels."""
        return self.name in {"ERROR", "CANCEL_ACKNOWLEDGED", "NEW_SCRIPT"}

    @property
    def ended(self) -> bool:
        """Tell whether the version runs no more."""
        return self.complete or self.failed


@dataclass(frozen=True)
class LogLine:
    """Hold one piece of a kernel's log; `seconds` since the session's start."""

    seconds: float
    stream: str
    text: str


@dataclass(frozen=True)
class Submission:
    """Describe one submission; scores are None until it is scored."""

    ref: int
    status: str
    public: float | None
    private: float | None
    description: str
    error: str
    at: datetime | None

    @property
    def ended(self) -> bool:
        """Tell whether its scoring is over."""
        return self.status in {"COMPLETE", "ERROR"}


@dataclass(frozen=True)
class Limits:
    """Count the team's submissions; `left` is None where the server does not tell."""

    today: int
    total: int
    left: int | None


@dataclass(frozen=True)
class Quota:
    """Hold one accelerator's week in seconds."""

    used: float
    reserved: float
    total: float
    minimum: float

    @property
    def left(self) -> float:
        """Return the seconds neither used nor held by a running session."""
        return max(0.0, self.total - self.used - self.reserved)


@dataclass(frozen=True)
class QuotaView:
    """Hold the week's quotas and when they refresh; Kaggle's clock is `ahead_s` ahead of ours."""

    gpu: Quota | None
    tpu: Quota | None
    refresh: datetime | None
    ahead_s: float = 0.0


@dataclass(frozen=True)
class LeaderboardRow:
    """Hold one team's place."""

    team: str
    score: float | None
    at: datetime | None


def words(value: Any) -> str:
    """Read a text without live secrets; anything else counts as absent."""
    return redact(value) if isinstance(value, str) else ""


def count(value: Any) -> int:
    """Read a whole number, which may travel as text; anything else is 0, as if absent."""
    try:
        return int(value)
    except (TypeError, ValueError, OverflowError):
        return 0


def rows(answer: Mapping[str, Any], key: str) -> list[dict[str, Any]]:
    """Read a list of objects; what is none of that counts as absent."""
    items = answer.get(key)
    return [item for item in items if isinstance(item, dict)] if isinstance(items, list) else []


def size_of(item: Mapping[str, Any]) -> int | None:
    """Read a listed file's bytes, None where the server does not tell."""
    return None if item.get("totalBytes") is None else count(item["totalBytes"])


def inner(answer: Mapping[str, Any], key: str) -> dict[str, Any]:
    """Read an object inside another; anything else counts as an empty one."""
    found = answer.get(key)
    return found if isinstance(found, dict) else {}


def moment(text: Any) -> datetime | None:
    """Read Kaggle's `YYYY-MM-DDTHH:MM:SS.mmmZ`; None for nothing or for another form."""
    if not isinstance(text, str) or not text:
        return None
    try:
        at = datetime.fromisoformat(text)
    except ValueError:
        return None
    return at.astimezone(UTC) if at.tzinfo else at.replace(tzinfo=UTC)


def seconds(text: Any) -> float:
    """Read a duration such as `"71094.4s"`; nothing is 0."""
    if isinstance(text, timedelta):
        return text.total_seconds()
    try:
        number = float(str(text or "0").rstrip("s"))
    except ValueError:
        return 0.0
    return number if math.isfinite(number) else 0.0


def score(text: Any) -> float | None:
    """Read a score; Kaggle sends `""` until there is one."""
    try:
        number = float(text)
    except (TypeError, ValueError, OverflowError):
        return None
    return number if math.isfinite(number) else None

"""What is known of the sessions of a training, and in which words a failed one is told."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from kagflow.progress import read_news
from kagflow.ship import train_order
from kagflow.ship.cause import cause
from kagflow.ship.remote import Remote
from kagflow.ship.remote_types import KernelStatus, LogLine

TAIL = 30
_SECONDS = re.compile(r"^SECONDS = ([\d.]+)$", re.MULTILINE)


@dataclass(frozen=True)
class Session:
    """What is known of one session; `left` is empty where it brought nothing back.

    One whose output arrives damaged is `lost`, in these words; the runs that are `kept` of it are
    those that arrived whole and finished.
    """

    number: int
    ref: str
    version: int
    seconds: float = 0.0
    left: Mapping[str, Any] = field(default_factory=dict)
    lost: str = ""
    kept: tuple[str, ...] = ()

    @property
    def good(self) -> bool:
        """Whether the next session can go on from it."""
        return bool(self.left)

    @property
    def progress(self) -> list[int]:
        """How far the jobs are: finished ones, then steps of the others."""
        return list(self.left.get("progress", (0, 0)))

    @property
    def finished(self) -> bool:
        """Whether it left every run finished."""
        return self.good and all(job["finished"] for job in self.left["jobs"].values())

    @property
    def failed(self) -> list[str]:
        """The runs whose training ended with an error of its own."""
        jobs = self.left.get("jobs", {})
        return [run for run, job in jobs.items() if job["code"] and not job["finished"]]


@dataclass(frozen=True)
class Ended:
    """How a chain came to its end: trained, or why not; `spent_s` of all its sessions."""

    sessions: tuple[Session, ...]
    spent_s: float
    why: str = ""
    failed: tuple[str, ...] = ()
    tail: tuple[str, ...] = ()


def find_pushed(remote: Remote, ref: str, mark: str, since: str) -> dict[str, Any] | None:
    """Return the push of a session whose kernel's source carries `mark`, None where there is none.

    `since` is when it was meant to be pushed.
    """
    seen: list[str] = []

    def is_it(source: str) -> bool:
        seen[:] = [source]
        return mark in source

    there = remote.find_version(ref, is_it)
    if there is None:
        return None
    told = _SECONDS.search(seen[0])
    seconds = float(told[1]) if told else train_order.SESSION_S
    return {"ref": there.ref, "version": there.version, "at": since, "seconds": seconds}


def moved(sessions: list[Session]) -> bool:
    """Tell whether the last session that left something is further than the one before."""
    good = [one for one in sessions if one.good]
    if len(good) < 2 or set(good[-1].left["jobs"]) != set(good[-2].left["jobs"]):
        return True
    return good[-1].progress > good[-2].progress


def said_of(ref: str, version: int, status: KernelStatus, log: tuple[LogLine, ...]) -> list[str]:
    """Say in lines how a kernel failed: Kaggle's reason, the likely cause, the log's end."""
    tail = tail_of(log)
    reason = status.message or status.name
    found = cause(reason, tail)
    likely = [f"likely: {found.name}"] if found else []
    return [f"kernel {ref} version {version} failed: {reason}", *likely, *tail]


def tail_of(log: tuple[LogLine, ...]) -> tuple[str, ...]:
    """Return a log's last lines that were written for people."""
    lines = "".join(line.text for line in log).splitlines()
    return tuple([line for line in lines if read_news(line) is None][-TAIL:])

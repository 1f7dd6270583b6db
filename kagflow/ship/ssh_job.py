"""A job on a host: started once, followed line by line through broken connections."""

from __future__ import annotations

import base64
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from kagflow.progress import read_news
from kagflow.ship.ssh import Link
from kagflow.ship.ssh_send import ask

# How long the host waits for a line before it answers that there is none.
WAIT_SECONDS = 10.0
TAIL = 30


@dataclass(frozen=True)
class Standing:
    """How a job stands: none, running, ended or gone (it ended without a word).

    `started` is by this machine's clock, `seconds` how long it has run, `code` its exit status
    where it ended (negative for a signal), `late` whether its deadline ended it, `note` what was
    noted with it.
    """

    state: str
    pid: int | None = None
    started: datetime | None = None
    seconds: float = 0.0
    code: int | None = None
    late: bool = False
    note: Any = None
    log_from: int = 0

    @classmethod
    def read(cls, told: Mapping[str, Any]) -> Standing:
        """Read a host's answer."""
        if told["state"] == "none":
            return cls("none")
        ending = told["exit"] or {}
        until = ending.get("ended", told["now"])
        # The host's clock may be another: only differences of it count.
        started = datetime.now(UTC).timestamp() - (told["now"] - told["started"])
        return cls(
            told["state"],
            told["pid"],
            datetime.fromtimestamp(started, UTC),
            max(0.0, until - told["started"]),
            ending.get("code"),
            bool(ending.get("late")),
            told["note"],
            told["log_from"],
        )


def start(
    link: Link,
    job: str,
    steps: Sequence[Mapping[str, Any]],
    *,
    deadline: float | None = None,
    note: Any = None,
) -> tuple[Standing, bool]:
    """Start a job, or find that it runs already; tell which. `deadline` is in seconds.

    A step has argv, and may have cwd and env. Where the answer is lost, asking again finds the job
    that was started.
    """
    told = ask(link, "start", job=job, steps=list(steps), deadline=deadline, note=note)
    return Standing.read(told), bool(told["fresh"])


def find(link: Link, job: str) -> Standing:
    """Return how a job stands."""
    return Standing.read(ask(link, "status", job=job))


def follow(link: Link, job: str, say: Callable[[str], None]) -> tuple[Standing, list[str]]:
    """Say each line of a job's log once, to its end; return how it ended and its last words.

    A connection that breaks is opened again, and the log goes on at the very byte. An interrupt
    leaves the job as it is.
    """
    offset, tail, rest = find(link, job).log_from, list[str](), b""
    while True:
        told = ask(link, "follow", job=job, offset=offset, wait=WAIT_SECONDS)
        data = rest + base64.b64decode(told["data"])
        offset, over = told["offset"], told["state"] != "running" and not told["data"]
        whole, newline, rest = data.rpartition(b"\n")
        lines = whole.split(b"\n") if newline else []
        if over and rest:
            lines, rest = [*lines, rest], b""
        for line in lines:
            text = line.decode(errors="replace").rstrip("\r")
            if read_news(text) is None:
                tail = [*tail[1 - TAIL :], text]
            say(text)
        if over:
            return Standing.read(told), tail

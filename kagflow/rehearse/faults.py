"""Faults on demand: a short list of what goes wrong at which endpoint, carried out on the wire.

The list is `faults.json` in the store, or a `Plan` that a test holds. Without either there is
none. An endpoint is an RPC's method ("SaveKernel"), "upload", "storage" or "log"; `at` may be a
pattern. The first fault in the list that fits a request and is not used up happens to it.
"""

from __future__ import annotations

import fnmatch
import json
import threading
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from kagflow import durable
from kagflow.errors import DataError

FILE = "faults.json"
KINDS: Mapping[str, str] = {
    "status": "answer `status` with `text` in `shape`, no effect",
    "drop": "close the connection, no effect",
    "hang": "say nothing for `seconds`, then close, no effect",
    "slow": "wait `seconds`, then answer as usual",
    "lost": "the effect happens, the connection closes without an answer",
    "cut": "the answer's body ends after `byte` bytes of those announced",
    "garbage": "from `byte` on, the body is other bytes of the right length",
    "page": "the effect happens, the answer is a web page with status 200",
    "whole": "answer 200 with everything to a request for a range",
    "shifted": "answer a range with the bytes and Content-Range of another",
    "expired": "the link or the upload is no longer known",
    "asked": "take the request as if its JSON fields were `fields`",
    "answer": "put `fields` into the JSON answer; without `effect` they are all of it",
    "clock": "the Date header is `seconds` ahead",
}
SHAPES = ("nested", "flat", "html", "empty")


@dataclass(frozen=True)
class Fault:
    """Say what goes wrong where, from the `skip`-th fitting request on, `times` times (0: always).

    `retry_after` is seconds, or "date+SECONDS" for an HTTP date.
    """

    at: str
    do: str
    times: int = 1
    skip: int = 0
    ranged: bool = False  # only requests that ask for or send a range
    status: int = 500
    shape: str = "nested"
    text: str = "scripted"
    retry_after: float | str | None = None
    byte: int = 0
    seconds: float = 0.0
    fields: Mapping[str, Any] = field(default_factory=dict)
    effect: bool = True

    def __post_init__(self) -> None:
        """Raise DataError for a kind or shape that is not known."""
        if self.do not in KINDS or self.shape not in SHAPES:
            raise DataError(f"no fault '{self.do}' in shape '{self.shape}'", hint=str([*KINDS]))

    def fits(self, endpoint: str, *, ranged: bool) -> bool:
        """Tell whether a request to an endpoint is one that this happens to."""
        return fnmatch.fnmatchcase(endpoint, self.at) and (ranged or not self.ranged)


# Frequent ones by name: what Kaggle, its storage and networks were seen to do.
NAMED: Mapping[str, Fault] = {
    "unauthenticated": Fault("*", "status", status=401, text="Unauthenticated"),
    "forbidden": Fault("*", "status", status=403, text="Permission denied", shape="flat"),
    "missing": Fault("*", "status", status=404, text="Not found"),
    "busy": Fault("*", "status", status=429, text="Too many requests"),
    "busy-seconds": Fault("*", "status", status=429, retry_after=2),
    "busy-date": Fault("*", "status", status=429, retry_after="date+2"),
    "broken": Fault("*", "status", status=500, shape="html"),
    "unavailable": Fault("*", "status", status=503, shape="empty"),
    "dropped": Fault("*", "drop"),
    "lost-answer": Fault("*", "lost"),
    "hanging": Fault("*", "hang", seconds=3600),
    "slow": Fault("*", "slow", seconds=0.05),
    "sign-in-page": Fault("*", "page"),
    "half-an-answer": Fault("*", "cut", byte=10),
    "cut-download": Fault("storage", "cut", byte=1000),
    "cut-upload": Fault("upload", "drop"),
    "whole-for-range": Fault("storage", "whole", ranged=True),
    "shifted-range": Fault("storage", "shifted", ranged=True),
    "garbage-download": Fault("storage", "garbage"),
    "expired-link": Fault("storage", "expired"),
    "expired-upload": Fault("upload", "expired"),
    "dataset-slow": Fault("GetDatasetStatus", "answer", 3, fields={"status": "BLOBS_RECEIVED"}),
    "dataset-again": Fault("GetDatasetStatus", "answer", 2, fields={"status": "REPROCESSING"}),
    "dataset-failed": Fault("GetDatasetStatus", "answer", 0, fields={"status": "FAILED"}),
    "dataset-nothing": Fault("GetDatasetStatus", "answer", effect=False),
    "kernel-stuck": Fault("GetKernelSessionStatus", "answer", 0, fields={"status": "RUNNING"}),
    "kernel-cancelled": Fault(
        "GetKernelSessionStatus", "answer", 0, fields={"status": "CANCEL_ACKNOWLEDGED"}
    ),
    "kernel-unheard-of": Fault("GetKernelSessionStatus", "answer", fields={"status": "PAUSED"}),
    "kernel-other-version": Fault("GetKernelSessionStatus", "asked", fields={"versionLabel": None}),
    "invalid-source": Fault(
        "SaveKernel", "answer", fields={"invalidDatasetSources": ["local/gone"]}
    ),
    "no-version": Fault("SaveKernel", "answer", fields={"versionNumber": None}),
    "no-slot": Fault(
        "SaveKernel",
        "answer",
        fields={"error": "Maximum batch GPU session count of 2 reached."},
        effect=False,
    ),
    "no-quota": Fault(
        "SaveKernel",
        "answer",
        fields={"error": "Maximum weekly GPU quota of 30.00 hours reached."},
        effect=False,
    ),
    "daily-limit": Fault(
        "CreateCodeSubmission",
        "status",
        status=400,
        text="Submission not allowed: Your team has used its daily Submission allowance (5) today",
    ),
    "wrong-clock": Fault("*", "clock", 0, seconds=900),
}


class Plan:
    """Hand out faults in order, and remember which happened; safe on many threads."""

    def __init__(self, faults: Sequence[Fault] = ()) -> None:
        self._lock = threading.Lock()
        self.set(faults)

    def set(self, faults: Sequence[Fault]) -> None:
        """Begin anew with other faults."""
        with self._lock:
            self._faults = tuple(faults)
            self._met = [0] * len(self._faults)
            self.happened: list[tuple[str, str]] = []

    def take(self, endpoint: str, *, ranged: bool = False) -> Fault | None:
        """Return what happens to this request, None for nothing."""
        with self._lock:
            for at, fault in enumerate(self._faults):
                if not fault.fits(endpoint, ranged=ranged) or self._used_up(at):
                    continue
                self._met[at] += 1
                if self._met[at] > fault.skip:
                    self.happened.append((endpoint, fault.do))
                    return fault
        return None

    def _used_up(self, at: int) -> bool:
        fault = self._faults[at]
        return bool(fault.times) and self._met[at] >= fault.skip + fault.times


class FilePlan(Plan):
    """Follow a store's faults.json: another content begins anew, no file means no fault."""

    def __init__(self, store_dir: Path) -> None:
        super().__init__()
        self._path = store_dir / FILE
        self._text = ""

    def take(self, endpoint: str, *, ranged: bool = False) -> Fault | None:
        """Return what happens to this request, None for nothing."""
        try:
            text = self._path.read_text()
        except OSError:
            text = ""
        if text != self._text:
            self.set(_parse(text, self._path) if text else ())
            self._text = text
        return super().take(endpoint, ranged=ranged)


def write(store_dir: Path, faults: Sequence[Fault]) -> None:
    """Plan faults for a store's server, running or not; none ends them."""
    path = store_dir / FILE
    if faults:
        durable.write_json(path, [asdict(fault) for fault in faults])
    else:
        path.unlink(missing_ok=True)


def _parse(text: str, path: Path) -> list[Fault]:
    try:
        return [Fault(**item) for item in json.loads(text)]
    except (ValueError, TypeError) as error:
        raise DataError(f"{path}: no list of faults: {error}", hint=f"rm {path}") from None

"""Tell from its last words why a run or its scoring failed, and which rehearsal check is for that.

Kaggle names a failure in a few fixed words and shows no log of a hidden rerun; what a log does show
says more, so its last telling line decides.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Cause:
    """Name a likely cause; `check` is what a rehearsal does about it, `line` what gave it away."""

    name: str
    check: str
    line: str = ""


_KNOWN: tuple[tuple[str, str, str], ...] = (
    (
        "out of memory",
        r"out of memory|MemoryError|Allowed Compute|Cannot allocate memory|allocate more memory|"
        r"exit(ed)? (code )?137",
        "the memory limit of the rehearsal's runs (peak memory in the receipt)",
    ),
    (
        "out of time",
        r"Notebook Timeout|timed? ?out|time limit|no time:|for want of time|CANCEL_ACKNOWLEDGED",
        "the projected minutes against the limit (projected in the receipt; --full times more)",
    ),
    (
        "a module is missing",
        r"No module named|ModuleNotFoundError|DistributionNotFound|cannot import name",
        "the sandbox, which shows what the image and the pack hold and nothing else; what differs "
        "here from the image is listed in the receipt as unproved",
    ),
    (
        "no internet",
        r"Network is unreachable|Name or service not known|Temporary failure in name resolution|"
        r"getaddrinfo|LocalEntryNotFound|OfflineMode|NewConnectionError|Max retries exceeded",
        "the sandbox without a network (network blocked in the receipt)",
    ),
    (
        "another version of the pack",
        r"is not the (file|pack)|manifest was changed|another pack|not as the manifest lists",
        "nothing (only Kaggle mounts a pack's datasets): the kernel itself compares them with the "
        "pack",
    ),
    (
        "an input is missing",
        r"/kaggle/input|FileNotFoundError|No such file or directory|no competition data",
        "the rehearsed mount layouts (--full rehearses both)",
    ),
    (
        "the submission file",
        r"Submission CSV Not Found|Scoring Error|Submission file not found|Invalid submission",
        "the check of submission.csv against sample_submission.csv after every rehearsed run",
    ),
    (
        "an exception",
        r"Threw Exception|Traceback|\b[A-Z]\w*(Error|Exception)\b",
        "the rehearsed rerun on images that the kernel has not seen (--full runs all of them)",
    ),
)

# Who was killed has no last words: what Kaggle says then goes before the log.
_KILLED = re.compile("CANCEL_ACKNOWLEDGED|allocate more memory")


def cause(error: str, log: Sequence[str] = ()) -> Cause | None:
    """Return the likely cause of a failure from its log's last telling line, else from its error.

    An error that tells of a kill goes before the log. None where neither says anything known.
    """
    text = "".join(log) if any("\n" in piece for piece in log) else "\n".join(log)
    first = [error] if _KILLED.search(error) else []
    for line in (*first, *reversed(text.splitlines()), error):
        for name, pattern, check in _KNOWN[:-1]:
            if re.search(pattern, line, re.IGNORECASE):
                return Cause(name, check, line.strip())
    name, pattern, check = _KNOWN[-1]
    for line in (*reversed(text.splitlines()), error):
        if re.search(pattern, line):
            return Cause(name, check, line.strip())
    return None

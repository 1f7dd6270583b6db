"""From how a run ended to Kaggle's name for it and a sentence that helps."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kagflow.rehearse.sandbox import SandboxResult
from kagflow.rehearse.supervise import LogRecord
from kagflow.rehearse.trial import Trial
from kagflow.task.check import check_submission
from kagflow.task.spec import TaskSpec

TIMEOUT = "Notebook Timeout"
THREW = "Notebook Threw Exception"
COMPUTE = "Notebook Exceeded Allowed Compute"
NO_CSV = "Submission CSV Not Found"
SCORING = "Submission Scoring Error"

SUBMISSION = "submission.csv"
REPORT = "kagflow-report.json"
TAIL = 30

_ERROR = re.compile(r"\b([A-Z]\w*(?:Error|Exception|Failed|Interrupt|Exit)\b(?:: .*)?)")
_FAILED = re.compile(r"\bFAILED\b[^:]*: (.*)")
_UNPROVED = re.compile(r"\bkagflow +[\d.]+ s +unproved: (.*)")
_MODULE = re.compile(r"No module named '([^']+)'")
_NETWORK = re.compile(
    r"Network is unreachable|Name or service not known|Temporary failure in name resolution|"
    r"getaddrinfo|NewConnectionError|outgoing traffic"
)
_HUB = re.compile(r"LocalEntryNotFound|OfflineMode")
_READ_ONLY = re.compile(r"Read-only file system")
_MOUNT = re.compile(r"No such file or directory: '/kaggle/input/")
_HOME = re.compile(r"No such file or directory: '(/root/|/home/)")
# What the kernel says of itself, and the name under which Kaggle would fail it for that.
_NAMES = {
    "no time:": TIMEOUT,
    "out of memory:": COMPUTE,
    "no submission.csv was written": NO_CSV,
    "submission.csv has columns": SCORING,
    "rows of submission.csv are not": SCORING,
    "run lengths of submission.csv": SCORING,
    "run lengths overlap": SCORING,
}


@dataclass(frozen=True)
class Failure:
    """Name a failure as Kaggle does, and say what to do about it."""

    name: str
    sentence: str


def judge(result: SandboxResult, working: Path, task: TaskSpec, trial: Trial) -> Failure | None:
    """Find what is wrong with a run; None where nothing is.

    A forgiving rerun ends well whatever happens, with an all-empty file: what it reports and
    prints counts, not its exit status alone.
    """
    if result.timed_out:
        return Failure(TIMEOUT, f"{trial.images} images were not done in {result.seconds:.0f} s")
    if result.out_of_memory:
        peak = result.peak_bytes / 2**30
        return Failure(COMPUTE, f"memory passed the limit at {peak:.1f} GiB")
    if result.returncode:
        return _named(explain(result.log) or f"exit status {result.returncode}")
    if not (working / SUBMISSION).is_file():
        return Failure(NO_CSV, explain(result.log) or f"the kernel left no {SUBMISSION}")
    faults = check_submission(working / SUBMISSION, task, trial.sample(task), trial.sizes)
    if faults:
        more = f" (and {len(faults) - 1} more)" if len(faults) > 1 else ""
        return Failure(SCORING, f"{SUBMISSION}, {faults[0]}{more}")
    return _hidden_failure(result.log, read_report(working), trial)


def read_report(working: Path) -> dict[str, Any]:
    """Return what the kernel reported, {} where it did not get that far."""
    try:
        values = json.loads((working / REPORT).read_text())
    except (OSError, ValueError):
        return {}
    return values if isinstance(values, dict) else {}


def explain(log: Sequence[LogRecord]) -> str:
    """Return a sentence on the last error that a log tells of, "" where there is none."""
    for line in reversed(lines(log)):
        found = _FAILED.search(line) or _ERROR.search(line)
        if found:
            return _advise(found[1].strip())
    return ""


def unproved(log: Sequence[LogRecord]) -> tuple[str, ...]:
    """Return what the kernel says that this machine can't prove of Kaggle's."""
    return tuple(found[1] for line in lines(log) if (found := _UNPROVED.search(line)))


def lines(log: Sequence[LogRecord]) -> list[str]:
    """Return a log's lines without their ends."""
    return "".join(record["data"] for record in log).splitlines()


def missing(text: str) -> str:
    """Return the module that an error could not import, "" for another error."""
    found = _MODULE.search(text)
    return found[1] if found else ""


def _hidden_failure(
    log: Sequence[LogRecord], report: dict[str, Any], trial: Trial
) -> Failure | None:
    if not report:
        text = explain(log) or f"the kernel wrote no {REPORT}: it ended before it could predict"
        return _named(text)
    if report.get("error"):
        return Failure(THREW, _advise(str(report["error"])))
    if swallowed := next((found[1] for line in lines(log) if (found := _FAILED.search(line))), ""):
        return _named(_advise(swallowed.strip()))
    for name, what in report.get("lost", {}).items():
        return Failure(THREW, f"member {name} had to be left out: {_advise(what)}")
    if report.get("late"):
        return Failure(TIMEOUT, f"{report['late']} images were left empty for want of time")
    unexpected = {k: v for k, v in report.get("faults", {}).items() if k not in trial.corrupt}
    if unexpected:
        image_id, what = next(iter(unexpected.items()))
        return Failure(
            THREW, f"{len(unexpected)} images could not be predicted; {image_id}: {what}"
        )
    predicted = int(report.get("predicted", report.get("images", 0)))
    if predicted + int(report.get("skipped", 0)) != trial.images:
        return Failure(THREW, f"{predicted} of {trial.images} images were predicted")
    return None


def _named(text: str) -> Failure:
    """Return a failure under the name that goes with what the kernel said of itself."""
    name = next((name for words, name in _NAMES.items() if words in text), THREW)
    return Failure(name, text)


def _advise(text: str) -> str:
    module = _MODULE.search(text)
    if module:
        return (
            f"{text}: '{module[1]}' is neither in the image nor in the pack; "
            "name its distribution under requires: in competition.yaml"
        )
    if _HUB.search(text):
        return (
            f"the kernel asked a hub for weights; build the model with pretrained=False or "
            f"encoder_weights: null, the pack brings its own: {text}"
        )
    if _NETWORK.search(text):
        return f"the kernel reached for the network, which a submission does not have: {text}"
    if _MOUNT.search(text):
        return f"mounts are not always there; look for the file below /kaggle/input: {text}"
    if _HOME.search(text):
        return f"the kernel wants a file of this machine's home, which Kaggle lacks: {text}"
    if _READ_ONLY.search(text):
        return f"the kernel wrote where Kaggle is read-only; use /kaggle/working: {text}"
    return text

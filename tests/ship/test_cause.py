"""A failure's likely cause, from its last words."""

from __future__ import annotations

import pytest

from kagflow.ship.cause import cause


@pytest.mark.parametrize(
    ("error", "log", "name", "check"),
    [
        ("", ["RuntimeError: CUDA out of memory. Tried"], "out of memory", "memory limit"),
        ("Notebook Exceeded Allowed Compute", [], "out of memory", "memory limit"),
        ("Notebook Timeout", [], "out of time", "projected minutes"),
        ("CANCEL_ACKNOWLEDGED", [], "out of time", "projected minutes"),
        ("ERROR", ["ModuleNotFoundError: No module named 'smp'"], "a module is missing", "sandbox"),
        ("ERROR", ["socket.gaierror: getaddrinfo failed"], "no internet", "without a network"),
        (
            "ERROR",
            ["FileNotFoundError: [Errno 2] '/kaggle/input/x'"],
            "an input is missing",
            "mount layouts",
        ),
        ("Submission Scoring Error", [], "the submission file", "sample_submission"),
        ("Notebook Threw Exception", [], "an exception", "rerun"),
        ("ERROR", ["Traceback", "ValueError: odd"], "an exception", "rerun"),
    ],
)
def test_last_words_name_the_cause_and_the_check(
    error: str, log: list[str], name: str, check: str
) -> None:
    found = cause(error, log)
    assert found is not None
    assert found.name == name
    assert check in found.check


def test_the_log_says_more_than_the_error_and_its_end_more_than_its_start() -> None:
    log = ["no time: 5 images left", "ModuleNotFoundError: No module named 'timm'", "bye"]
    found = cause("Notebook Timeout", log)
    assert found is not None
    assert found.name == "a module is missing"
    assert found.line == log[1]


def test_a_named_cause_is_preferred_to_a_mere_exception() -> None:
    found = cause("ERROR", ["CUDA out of memory", "RuntimeError: worker died"])
    assert found is not None
    assert found.name == "out of memory"


def test_nothing_known_is_said_to_be_nothing() -> None:
    assert cause("ERROR", ["about to begin"]) is None
    assert cause("", []) is None


def test_a_kill_that_kaggle_tells_of_goes_before_the_log() -> None:
    log = ["warning: no file: No such file or directory: 'extra.json'"]
    for error, name in (
        ("CANCEL_ACKNOWLEDGED: it ran past its time limit", "out of time"),
        ("Your notebook tried to allocate more memory than is available", "out of memory"),
    ):
        found = cause(error, log)
        assert found is not None
        assert (found.name, found.line) == (name, error)

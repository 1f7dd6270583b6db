from __future__ import annotations

import pytest

from kagflow.cli.session import take_shared
from kagflow.cli.words import options, seconds, size, split, sweep
from kagflow.errors import UsageError


def test_a_bare_word_is_the_competition_and_the_rest_are_overrides() -> None:
    found = split(["steel", "fold=0", "model.kwargs.name=a=b"])
    assert found.competition == "steel"
    assert found.overrides == {"fold": "0", "model.kwargs.name": "a=b"}


@pytest.mark.parametrize("words", [["steel", "tiles"], ["fold=0", "fold=1"]])
def test_what_is_said_twice_is_refused(words: list[str]) -> None:
    with pytest.raises(UsageError):
        split(words)


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("0,1,2", ["0", "1", "2"]),
        ("[128, 800]", ["[128, 800]"]),
        ("[1,2],[3,4]", ["[1,2]", "[3,4]"]),
        ("{a: 1, b: 2},x", ["{a: 1, b: 2}", "x"]),
        ("'a,b',c", ["'a,b'", "c"]),
        ("", [""]),
    ],
)
def test_a_comma_outside_brackets_sweeps(text: str, parts: list[str]) -> None:
    assert options(text) == parts


def test_a_sweep_is_every_combination_in_order() -> None:
    found = sweep({"fold": "0,1", "lr": "1e-3,3e-4"})
    assert [tuple(one.values()) for one in found] == [
        ("0", "1e-3"), ("0", "3e-4"), ("1", "1e-3"), ("1", "3e-4"),
    ]  # fmt: skip


@pytest.mark.parametrize(
    "argv",
    [
        ["--json", "--profile", "local", "fetch", "steel"],
        ["fetch", "steel", "--profile=local", "--json"],
        ["fetch", "--json", "steel", "--profile", "local"],
    ],
)
def test_shared_options_stand_anywhere(argv: list[str]) -> None:
    settings, rest = take_shared(argv)
    assert rest == ["fetch", "steel"]
    assert (settings.json_mode, settings.profile, settings.quiet) == (True, "local", False)


@pytest.mark.parametrize(
    ("text", "span"), [("8h", 28800), ("90m", 5400), ("1h30m", 5400), ("45s", 45), ("7.5", 7.5)]
)
def test_time_spans(text: str, span: float) -> None:
    assert seconds(text) == span


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("6GB", 6 * 10**9),
        ("6GiB", 6 * 2**30),
        ("1.5g", 15 * 10**8),
        ("800 MB", 8 * 10**8),
        ("7", 7),
    ],
)
def test_amounts_of_memory(text: str, count: int) -> None:
    assert size(text) == count


@pytest.mark.parametrize("text", ["", "0", "0h", "h", "8x", "-1h", "1h 30m", "..", "1e3"])
def test_what_is_no_time_or_memory_is_refused(text: str) -> None:
    with pytest.raises(UsageError):
        seconds(text)
    with pytest.raises(UsageError):
        size(text)

from __future__ import annotations

import json

import pytest

from kagflow.errors import DataError
from kagflow.output import Output


def test_data_goes_to_stdout_and_talk_to_stderr(capsys: pytest.CaptureFixture[str]) -> None:
    out = Output()
    out.say("talk [bold]as it is[/bold]")
    out.result({"a": 1}, "the answer")
    printed = capsys.readouterr()
    assert printed.out == "the answer\n"
    assert printed.err == "talk [bold]as it is[/bold]\n"


def test_json_is_one_object_and_no_table(capsys: pytest.CaptureFixture[str]) -> None:
    out = Output(json_mode=True)
    out.table("t", ("a",), [(1,)])
    out.result({"a": 1}, "text")
    assert json.loads(capsys.readouterr().out) == {"schema": 1, "a": 1}


def test_quiet_silences_talk_but_no_warning_and_no_error(
    capsys: pytest.CaptureFixture[str],
) -> None:
    out = Output(quiet=True)
    out.say("talk")
    out.warn("careful")
    out.error(DataError("bad row 3", hint="mend it"))
    printed = capsys.readouterr()
    assert printed.err == "warning: careful\nerror: bad row 3\n  -> mend it\n"


def test_an_error_under_json_is_data_too(capsys: pytest.CaptureFixture[str]) -> None:
    Output(json_mode=True).error(DataError("bad", hint="mend"))
    told = json.loads(capsys.readouterr().out)
    assert told == {"schema": 1, "error": "bad", "hint": "mend", "exit_code": 6}


def test_a_table_in_a_pipe_is_not_cut(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("COLUMNS")
    Output().table("t", ("first", "second"), [("x" * 60, "y" * 60)])
    printed = capsys.readouterr().out
    assert "x" * 60 in printed
    assert "y" * 60 in printed


def test_a_title_is_not_folded_to_the_width_of_its_table(
    capsys: pytest.CaptureFixture[str],
) -> None:
    Output().table("hours of [red] submissions this week", ("a", "b", "c"), [(1, 2, 3)])
    assert capsys.readouterr().out.splitlines()[0] == "hours of [red] submissions this week"


def test_progress_off_a_terminal_leaves_one_line_a_step(
    capsys: pytest.CaptureFixture[str],
) -> None:
    bars = Output().progress()
    bars.start("index", 3, "images")
    bars.advance()
    bars.note("one is odd")
    bars.finish()
    bars.finish()
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == "one is odd"
    assert lines[1].startswith("  index: ")
    assert len(lines) == 2

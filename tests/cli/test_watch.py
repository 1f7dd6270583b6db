"""A training elsewhere, watched through its log: the tables of one here, each epoch once."""

from __future__ import annotations

import io
import json
import os
import pty
import re
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from kagflow.cli import told
from kagflow.cli.board import Board
from kagflow.cli.watch import Watch
from kagflow.output import Output
from kagflow.progress import read_news

CLASSES = ("rust", "dent")
FIGURES = {"loss": 0.25, "images_per_second": 123.4, "wait_share": 0.25}


def log_of(*titles: str, epochs: int = 2, begin: int = 0) -> list[str]:
    """Return the log of trainings side by side, as kagflow writes it where it is not watched."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv(told.EVERY, "0")
        patched.setattr(sys, "stderr", written := io.StringIO())
        opened = [told.told(one, Board(Output(), one, CLASSES)) for one in titles]
        told_ = [one.__enter__() for one in opened]
        for one in told_:
            one.start("decode images", 3, "images")
            one.advance()
            one.finish()
        for epoch in range(begin, begin + epochs):
            for one in told_:
                one.start(f"epoch {epoch + 1}/{epochs}", 2, "steps")
            for one in told_:
                one.advance()
                one.show({"epoch": epoch, **FIGURES, "seconds_left": 60.0})
                one.advance()
                one.finish()
                one.note(f"a remark {epoch}")
                one.show({"epoch": epoch, **FIGURES, "val_score": 0.75}, whole=True)
        for each in opened:
            each.__exit__(None, None, None)
    return written.getvalue().splitlines()


def watch(lines: list[str], *, pause: float = 0.0) -> None:
    with Watch(Output(), CLASSES) as one:
        one.start("kernel me/k version 1")
        for text in lines:
            if told.OVER in text:
                time.sleep(pause)
            one.note(text)


def shown(capsys: pytest.CaptureFixture[str]) -> list[str]:
    return [text.partition("; ")[0].strip() for text in capsys.readouterr().err.splitlines()]


def test_a_log_holds_steps_as_news_and_all_else_as_words() -> None:
    lines = log_of("tiny fold 0", epochs=1)
    news = [one for one in map(read_news, lines) if one is not None]
    assert {one["of"] for one in news} == {"tiny fold 0"}
    assert (news[0]["what"], news[-1]["what"]) == (told.BEGIN, told.OVER)
    assert sum(one["what"] == "show" and one["whole"] for one in news) == 1
    assert [text.split(":")[0] for text in lines if read_news(text) is None] == [
        "  decode images", "a remark 0",
    ]  # fmt: skip


def test_what_nobody_asks_for_is_not_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(told.EVERY, raising=False)
    board = Board(Output(), "tiny", CLASSES)
    with told.told("tiny", board) as progress:
        assert progress is board


def test_a_pipe_gets_the_lines_of_a_training_here(capsys: pytest.CaptureFixture[str]) -> None:
    watch(log_of("tiny fold 0"))
    assert shown(capsys)[1:-1] == [
        "a remark 0", "epoch 1: loss 0.2500", "a remark 1", "epoch 2: loss 0.2500",
    ]  # fmt: skip


def test_several_at_a_time_are_told_apart(capsys: pytest.CaptureFixture[str]) -> None:
    watch([one for one in log_of("tiny fold 0", "tiny fold 1") if "remark" not in one])
    assert [one for one in shown(capsys) if "epoch" in one] == [
        f"tiny fold {fold}: epoch {epoch}: loss 0.2500" for epoch in (1, 2) for fold in (0, 1)
    ]


def test_a_log_that_comes_again_shows_no_epoch_twice(capsys: pytest.CaptureFixture[str]) -> None:
    lines = log_of("tiny fold 0")
    watch([*lines[:-3], *lines, *log_of("tiny fold 0", begin=2, epochs=1)])
    assert [one for one in shown(capsys) if one.startswith("epoch")] == [
        f"epoch {number}: loss 0.2500" for number in (1, 2, 3)
    ]


def test_news_may_come_in_two_pieces_and_words_may_look_like_news(
    capsys: pytest.CaptureFixture[str],
) -> None:
    figures = {"epoch": 0, **FIGURES}
    text = json.dumps({"what": "show", "of": "t", "figures": figures, "whole": True})
    odd = [
        '{"what": "show", "of": "t", "figures": {}, "whole": true}',
        '{"what": "unheard of", "of": "t"}',
        '{"what": "start", "of": "t"}',
        '{"what": "now"}',
        "[1, 2]",
    ]
    watch([text[:40], text[40:], *odd, '{"what": "to'])
    assert shown(capsys)[:-1] == ["epoch 1: loss 0.2500", *odd, '{"what": "to']


def test_quiet_shows_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    with Watch(Output(quiet=True), CLASSES) as one:
        for text in log_of("a", "b"):
            one.note(text)
    assert capsys.readouterr().err == ""


CHILD = """
from tests_watch import log_of, watch
watch(log_of({titles}) + ["the end"], pause=0.4)
"""


def on_a_terminal(folder: Path, titles: str) -> str:
    (folder / "tests_watch.py").write_text(Path(__file__).read_text())
    env = os.environ | {"PYTHONPATH": str(folder), "TERM": "xterm", "COLUMNS": "100", "LINES": "40"}
    ours, theirs = pty.openpty()
    child = subprocess.Popen(
        [sys.executable, "-c", CHILD.format(titles=titles)],
        stdin=theirs, stdout=theirs, stderr=theirs, env=env,
    )  # fmt: skip
    os.close(theirs)
    seen = b""
    while True:
        try:
            part = os.read(ours, 65536)
        except OSError:
            break
        if not part:
            break
        seen += part
    os.close(ours)
    assert child.wait(60) == 0, seen.decode()
    assert b"\x1b[?25h" in seen, "the cursor is given back"
    return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", seen.decode())


def test_a_terminal_gets_the_table_of_a_training_here(tmp_path: Any) -> None:
    text = on_a_terminal(tmp_path, "'tiny [fold] 0', epochs=3")
    table = text.rpartition("tiny [fold] 0")[2].split("kernel me/k")[0]
    assert re.findall(r"^\s+(\d)   0\.2500   0\.7500", table, re.MULTILINE) == ["1", "2", "3"]
    assert "the end" in table
    assert '"what"' not in text


def test_a_terminal_gets_a_row_for_each_of_several(tmp_path: Any) -> None:
    text = on_a_terminal(tmp_path, "'tiny fold 0', 'tiny fold 1'")
    rows = [one for one in text.splitlines() if "2/2 steps" in one]
    assert {row.strip()[:11] for row in rows} == {"tiny fold 0", "tiny fold 1"}
    lines = re.findall(r"tiny fold (\d): epoch (\d): loss", text)
    assert lines == [("0", "1"), ("1", "1"), ("0", "2"), ("1", "2")]
    assert '"what"' not in text

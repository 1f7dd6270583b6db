"""A training watched: a live table on a terminal, lines in a pipe, figures from the loop."""

from __future__ import annotations

import io
import os
import pty
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from kagflow.cli import board as boards
from kagflow.cli.board import Board
from kagflow.output import Output

EPOCH = {
    "epoch": 2,
    "loss": 0.25,
    "val_score": 0.75,
    "val_dice": [0.5, None],
    "images_per_second": 123.4,
    "wait_share": 0.25,
    "seconds_left": 5400.0,
}
STEP = {key: EPOCH[key] for key in ("epoch", "loss", "images_per_second", "wait_share")}


def watch(board: Board) -> None:
    """Tell of one epoch of two steps as the loop does, then of predicting."""
    with board:
        board.start("decode images", 3, "images")
        board.advance()
        board.finish()
        board.start("epoch 3/4", 2, "steps")
        for _ in range(2):
            board.advance()
            board.show(STEP | {"seconds_left": 60.0})
        board.note("a remark")
        board.finish()
        board.show(EPOCH, whole=True)
        board.start("predict fold 0", 3, "images")
        board.finish()


def test_a_pipe_gets_one_line_an_epoch(capsys: pytest.CaptureFixture[str]) -> None:
    watch(Board(Output(), "tiny fold 0", ("rust", "dent")))
    lines = capsys.readouterr().err.splitlines()
    assert [line.split(":")[0].strip() for line in lines] == [
        "decode images", "a remark", "epoch 3", "predict fold 0",
    ]  # fmt: skip
    assert lines[2] == (
        "  epoch 3: loss 0.2500; score 0.7500; Dice of rust 0.50, dent -; "
        "123 images/s, waiting 25%; 1.5 h left"
    )


def test_a_long_epoch_in_a_pipe_gives_signs_of_life(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(boards, "HEARTBEAT", -1.0)
    watch(Board(Output(), "tiny fold 0", ("rust", "dent")))
    lines = capsys.readouterr().err.splitlines()
    assert lines[1].startswith("  epoch 3/4, 1 of 2 steps: loss 0.2500; 123 images/s")
    assert lines[1].endswith("60 s left")
    assert lines[2].startswith("  epoch 3/4, 2 of 2 steps")


def test_a_step_that_nobody_has_judged_says_nothing() -> None:
    board = Board(Output(), "tiny", ())
    board.start("epoch 3/4", 2, "steps")
    board.show(STEP | {"loss": 0.0, "images_per_second": 0.0})
    assert board.now == {}


def test_quiet_shows_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    watch(Board(Output(quiet=True), "tiny fold 0", ("rust",)))
    assert capsys.readouterr().err == ""


def test_a_gpus_memory_is_told_where_there_is_one() -> None:
    assert "GPU" not in boards.line(EPOCH, ("rust",))
    assert "GPU 2.1 GB" in boards.line(EPOCH | {"gpu_mib": 2048.0}, ("rust",))


CHILD = """
from kagflow.cli.board import Board
from kagflow.output import Output
from tests_board import EPOCH, watch
watch(Board(Output(), "tiny [fold] 0", ("rust", "dent")))
"""


def on_a_terminal(code: str, env: dict[str, str]) -> str:
    ours, theirs = pty.openpty()
    child = subprocess.Popen(
        [sys.executable, "-c", code], stdin=theirs, stdout=theirs, stderr=theirs, env=env
    )
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
    return seen.decode()


def test_a_terminal_gets_a_table_that_stays(tmp_path: Any) -> None:
    (tmp_path / "tests_board.py").write_text(Path(__file__).read_text())
    env = os.environ | {"PYTHONPATH": str(tmp_path), "TERM": "xterm", "COLUMNS": "100"}
    env = {key: value for key, value in env.items() if key != "NO_COLOR"} | {"LINES": "40"}
    raw = on_a_terminal(CHILD, env)
    text = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", raw)
    assert "\x1b[?25h" in raw, "the cursor is given back"
    last = text.rpartition("tiny [fold] 0")[2]
    heads, figures = (
        "epoch loss score Dice rust Dice dent images/s waiting",
        "3 0.2500 0.7500 0.50 - 123 25%",
    )
    assert heads in " ".join(last.split())
    assert figures in " ".join(last.split())
    assert "a remark" in text
    assert "predict fold 0" in last


def test_many_epochs_fit_a_small_terminal_and_the_bar_says_what_is_left() -> None:
    from rich.console import Console

    board = Board(Output(), "tiny", ("rust", "dent"))
    for number in range(50):
        board.show(EPOCH | {"epoch": number}, whole=True)
    board.label, board.total, board.done = "epoch 51/60", 10, 4
    board.now = STEP | {"epoch": 50, "seconds_left": 120.0}
    console = Console(width=100, height=20, record=True, file=io.StringIO())
    console.print(boards.render(board, 20))
    text = console.export_text()
    assert text.count("\n") <= 20
    rows = re.findall(r"^\s+(\d+)\s+0\.25", text, re.MULTILINE)
    assert rows[-1] == "51"
    assert len(rows) == 20 - boards.MARGIN
    assert "4/10 steps   2 min left" in text

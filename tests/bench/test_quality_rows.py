"""Rows of the comparison are written once and never computed again."""

from __future__ import annotations

import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from kagflow.infer.postprocess import ClassRule
from kagflow.task.spec import TaskSpec

NAMES = ("quality_rows", "quality_train", "quality_stats", "plain_smp")


@pytest.fixture
def module(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.syspath_prepend(str(Path(__file__).parents[2] / "bench"))
    import quality_rows

    yield quality_rows
    for name in NAMES:
        sys.modules.pop(name, None)


def _place() -> SimpleNamespace:
    spec = TaskSpec(slug="x", kind="segmentation", classes=("1", "2"), metric="dice")
    return SimpleNamespace(spec=spec, arena=SimpleNamespace(data="made-up"))


def _told(module, dice: float, *, empty: bool):
    """Ten images with 100 true pixels of the first class, found with the given Dice."""
    counts = np.zeros((3, 10, 2), np.int64)
    counts[1:, :, 0] = 100
    counts[0, :, 0] = round(100 * dice)
    rules = (ClassRule(empty=empty), ClassRule(empty=True))
    return module.Told(plain=counts, tuned=counts, rules=rules, clusters=np.arange(10))


def _rows(module, tmp_path: Path, ours: float, theirs: float, *, empty: bool = False) -> list[str]:
    (tmp_path / "train.json").write_text('{"cpu_seconds": 12.0, "images_seen": 1}')
    arms = [module.Arm(label, (tmp_path,), "", "") for label in ("ours", "theirs")]
    told = [[_told(module, ours, empty=empty)], [_told(module, theirs, empty=empty)]]
    return [module.line(_place(), arms, told, way, "made-up images") for way in module.ROWS]


def test_a_row_tells_scores_gain_and_verdict(module, tmp_path: Path) -> None:
    row = _rows(module, tmp_path, 0.8, 0.6)[0]
    # The second class is empty and left empty: 1 on half of the score.
    for cell in ("0.9000", "0.8000", "+0.1000 [+0.1000, +0.1000]", "**win**", "0.800 / 0.600"):
        assert f"| {cell} |" in row
    assert "| 0.5000 | 12 / 12 |" in row
    assert "**loss**" in _rows(module, tmp_path, 0.6, 0.8)[0]
    assert "**tie**" in _rows(module, tmp_path, 0.6, 0.6)[0]


def test_arms_tuned_to_nothing_answer_nothing(module, tmp_path: Path) -> None:
    tuned, plain, _ = _rows(module, tmp_path, 0.8, 0.6, empty=True)
    assert "**not answered**" in tuned
    assert "**win**" in plain, "at threshold .5 the rules do not count"


def test_a_finished_row_stays_as_it_was(module, tmp_path: Path) -> None:
    results = tmp_path / "QUALITY.md"
    results.write_text("# Title\n\n| date | data |\n|---|---|\n")
    first = module.append(_rows(module, tmp_path, 0.8, 0.6), results)
    text = results.read_text()
    assert len(first) == 3
    assert module.append(_rows(module, tmp_path, 0.5, 0.6), results) == []
    assert results.read_text() == text

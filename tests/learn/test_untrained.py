"""Which folds are missing, what each would take, and what the score would gain by it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from kagflow.learn import checkpoint
from kagflow.learn.untrained import untrained

SIZES = {0: 50, 1: 30, 2: 20}


def finish(runs: Path, run: str, fold: int, score: float, **changes) -> None:
    folder = runs / run / f"fold{fold}"
    folder.mkdir(parents=True)
    facts = {"fold": fold, "folds": 3, "predicts": "mask", "score": score, "floor": 0.8}
    facts |= {"images": SIZES[fold], "seconds": 3000.0, "seconds_per_image": 0.0, "steps": 100}
    facts |= {"machine": "T4", "device": "cuda:0"}
    (folder / "run.json").write_text(json.dumps(facts | changes))


def test_a_lone_run_is_held_against_the_all_empty_file(tmp_path: Path) -> None:
    finish(tmp_path, "a", 0, 0.9, seconds=3500.0, seconds_per_image=2.0)
    one, two = untrained(tmp_path, SIZES)
    assert (one.run, one.fold, one.seconds, one.machine, one.over) == ("a", 1, 3600.0, "T4", "")
    assert one.gain == pytest.approx(0.1 * 0.3)
    assert one.per_hour == pytest.approx(0.03)
    assert (two.fold, two.per_hour) == (2, pytest.approx(0.02))


def test_a_fold_that_another_run_holds_gains_only_the_difference(tmp_path: Path) -> None:
    finish(tmp_path, "a", 0, 0.9)
    finish(tmp_path, "a", 1, 0.9)
    finish(tmp_path, "b", 0, 0.92)
    found = {(one.run, one.fold): one for one in untrained(tmp_path, SIZES)}
    assert set(found) == {("a", 2), ("b", 1), ("b", 2)}
    assert found["b", 1].over == "a"
    assert found["b", 1].gain == pytest.approx(0.02 * 0.3)
    assert found["b", 2].gain == pytest.approx(0.12 * 0.2)
    assert found["a", 2].measured == (0, 1)


def test_a_gate_is_not_compared_with_masks_and_strangers_say_nothing(tmp_path: Path) -> None:
    finish(tmp_path, "a", 1, 0.9)
    finish(tmp_path, "gate", 0, 0.95, predicts="label")
    finish(tmp_path, "b", 0, 0.92)
    found = {(one.run, one.fold): one for one in untrained(tmp_path, SIZES)}
    assert found["gate", 1].over == ""
    assert found["b", 1].over == "a"
    assert found["b", 1].gain is None
    assert found["b", 1].per_hour is None


def test_what_is_begun_costs_the_rest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    finish(tmp_path, "a", 0, 0.9)
    (tmp_path / "a" / "fold1").mkdir()
    monkeypatch.setattr(
        checkpoint, "steps", lambda folder: [50, 75] if folder.name == "fold1" else []
    )
    one = next(one for one in untrained(tmp_path, SIZES) if one.fold == 1)
    assert (one.share, one.seconds) == (0.75, 750.0)


def test_no_runs_no_plans(tmp_path: Path) -> None:
    (tmp_path / "begun" / "fold0").mkdir(parents=True)
    assert untrained(tmp_path, SIZES) == []

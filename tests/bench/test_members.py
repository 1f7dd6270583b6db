"""The members' rows score the whole hidden part, sealed or not."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from kagflow.task.score import score_files
from kagflow.task.spec import TaskSpec

SPEC = TaskSpec("s", "segmentation", ("1",))
HEADER = "ImageId,ClassId,EncodedPixels"


@pytest.fixture
def unsealed(monkeypatch: pytest.MonkeyPatch):
    bench = Path(__file__).parents[2] / "bench"
    before = set(sys.modules)
    monkeypatch.syspath_prepend(str(bench))
    import members

    yield members.unsealed
    for name in set(sys.modules) - before:
        if (bench / f"{name}.py").is_file():
            del sys.modules[name]


def test_what_is_sealed_counts_too(unsealed, tmp_path: Path) -> None:
    solution, csv = tmp_path / "solution.csv", tmp_path / "s.csv"
    solution.write_text(f"{HEADER},Usage,Height,Width\nx,1,1 4,Public,2,3\ny,1,,Ignored,2,3\n")
    csv.write_text(f"{HEADER}\nx,1,\ny,1,\n")
    assert score_files(csv, solution, SPEC)["all"].images == 1
    whole = score_files(csv, unsealed(solution, tmp_path / "whole.csv"), SPEC)
    assert list(whole) == ["all"]
    assert (whole["all"].images, whole["all"].value) == (2, 0.5)

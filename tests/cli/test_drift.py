"""Which images half precision is judged on, and weights in pieces on their way into a pack."""

from __future__ import annotations

from pathlib import Path

import pytest

from kagflow.cli.drift import choose, digest
from kagflow.cli.pack import in_pieces
from kagflow.errors import DataError

FOLDS = {f"i{number:02}": (number, number % 2) for number in range(40)}
TRUTH = {name: {0: "1 1"} for name in list(FOLDS)[:6]}


def test_images_are_of_the_fold_and_half_of_them_labelled() -> None:
    chosen = choose(FOLDS, TRUTH, 1, 4)
    assert len(set(chosen)) == 4
    assert {FOLDS[name][1] for name in chosen} == {1}
    assert sum(name in TRUTH for name in chosen) == 2
    assert choose(dict(reversed(FOLDS.items())), TRUTH, 1, 4) == chosen


def test_where_one_kind_is_rare_the_other_fills_up() -> None:
    assert len(choose(FOLDS, TRUTH, 0, 12)) == 12
    assert len(choose(FOLDS, {name: {0: ""} for name in FOLDS}, 0, 12)) == 12
    assert len(choose(FOLDS, {}, 0, 99)) == 20


def test_a_training_on_everything_takes_any_image() -> None:
    assert {FOLDS[name][1] for name in choose(FOLDS, TRUTH, "full", 20)} == {0, 1}


def test_pieces_travel_under_the_name_in_the_pack(tmp_path: Path) -> None:
    whole, cut = tmp_path / "aa.safetensors", tmp_path / "bb.safetensors"
    whole.write_bytes(b"whole")
    for number in (1, 2):
        cut.with_name(f"bb.{number}of2.safetensors").write_bytes(b"piece %d" % number)
    found = in_pieces({"run.fold0.safetensors": whole, "run.fold1.safetensors": cut})
    assert {name: file.name for name, file in found.items()} == {
        "run.fold0.safetensors": "aa.safetensors",
        "run.fold1.1of2.safetensors": "bb.1of2.safetensors",
        "run.fold1.2of2.safetensors": "bb.2of2.safetensors",
    }
    before = digest(cut)
    cut.with_name("bb.2of2.safetensors").write_bytes(b"other")
    assert digest(cut) != before
    cut.with_name("bb.2of2.safetensors").unlink()
    with pytest.raises(DataError, match="missing"):
        in_pieces({"run.fold1.safetensors": cut})

"""A large file in pieces: named so that whoever asks for the file finds them all."""

from __future__ import annotations

from pathlib import Path

import pytest

from kagflow.errors import DataError
from kagflow.shards import piece_name, pieces, there, whole_name


def test_a_piece_names_its_file() -> None:
    assert piece_name("a.fold0.safetensors", 2, 3) == "a.fold0.2of3.safetensors"
    assert whole_name("a.fold0.2of3.safetensors") == "a.fold0.safetensors"
    # A run's own name is no mark.
    assert whole_name("a.1of2.fold0.safetensors") == "a.1of2.fold0.safetensors"


def test_a_whole_file_is_its_own_piece(tmp_path: Path) -> None:
    file = tmp_path / "a.bin"
    assert not there(file)
    file.touch()
    assert pieces(file) == [file]
    assert there(file)


def test_pieces_count_when_all_are_there(tmp_path: Path) -> None:
    file = tmp_path / "a.bin"
    for number in range(1, 12):
        with pytest.raises(DataError, match="missing"):
            pieces(file)
        (tmp_path / piece_name("a.bin", number, 11)).touch()
    assert [one.name for one in pieces(file)][::5] == ["a.1of11.bin", "a.6of11.bin", "a.11of11.bin"]
    # Pieces of another cut, or of another file, do not disturb.
    (tmp_path / "a.1of2.bin").touch()
    (tmp_path / "b.1of1.bin").touch()
    assert len(pieces(file)) == 11

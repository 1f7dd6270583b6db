from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from kagflow import durable


def test_a_failed_write_leaves_the_old_file_and_no_litter(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    durable.write_text(path, "old")
    with pytest.raises(RuntimeError), durable.replacing(path) as beside:
        beside.write_text("half")
        raise RuntimeError
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_equal_values_give_equal_bytes(tmp_path: Path) -> None:
    durable.write_json(tmp_path / "a", {"b": 1, "a": "é"})
    durable.write_json(tmp_path / "b", {"a": "é", "b": 1})
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    assert (tmp_path / "a").read_bytes().endswith(b"\n")


def test_a_staged_folder_appears_whole_or_not_at_all(tmp_path: Path) -> None:
    final = tmp_path / "data"
    with pytest.raises(RuntimeError), durable.staging(final) as beside:
        (beside / "one").write_text("1")
        raise RuntimeError
    assert list(tmp_path.iterdir()) == []
    with durable.staging(final) as beside:
        (beside / "one").write_text("1")
        assert not final.exists()
    assert (final / "one").read_text() == "1"
    with pytest.raises(FileExistsError), durable.staging(final):
        pass


def test_files_are_flushed_before_they_are_renamed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    done: list[str] = []
    real_fsync, real_replace = durable.os.fsync, Path.replace
    monkeypatch.setattr(durable.os, "fsync", lambda one: (done.append("fsync"), real_fsync(one)))
    monkeypatch.setattr(
        Path, "replace", lambda one, two: (done.append("replace"), real_replace(one, two))[1]
    )
    durable.write_text(tmp_path / "a", "1")
    assert done == ["fsync", "replace", "fsync"]


def test_the_hash_is_the_files_own(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"kagflow")
    assert durable.sha256_file(tmp_path / "a") == hashlib.sha256(b"kagflow").hexdigest()


def test_a_staged_folder_is_flushed_with_or_without_syncfs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    done: list[str] = []
    real_fsync, real_rename, real_syncfs = durable.os.fsync, Path.rename, durable._syncfs
    monkeypatch.setattr(durable.os, "fsync", lambda one: (done.append("fsync"), real_fsync(one)))
    monkeypatch.setattr(
        Path, "rename", lambda one, two: (done.append("rename"), real_rename(one, two))[1]
    )
    monkeypatch.setattr(
        durable, "_syncfs", lambda one: (done.append("syncfs"), real_syncfs(one))[1]
    )
    with durable.staging(tmp_path / "a") as beside:
        (beside / "one").write_text("1")
    assert done in (["syncfs", "rename", "fsync"], ["syncfs", *["fsync"] * 2, "rename", "fsync"])
    done.clear()
    monkeypatch.setattr(durable, "_syncfs", lambda _: False)
    with durable.staging(tmp_path / "b") as beside:
        (beside / "one").write_text("1")
    assert done == ["fsync", "fsync", "rename", "fsync"]

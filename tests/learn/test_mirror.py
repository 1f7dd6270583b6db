"""Runs on a storage: every file is read back, and a kill anywhere leaves one to go on with."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import time
from pathlib import Path

import pytest

from kagflow.errors import DataError, LocalError
from kagflow.learn import mirror, shelf
from kagflow.learn.mirror import kept, restore, save, verify

FOLD = "steel/fpn/fold0"


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    folder = tmp_path / "runs" / FOLD
    folder.mkdir(parents=True)
    (folder / "config.yaml").write_text("recipe: {}\n")
    (folder / "metrics.jsonl").write_text("{}\n")
    (folder / ".lock").write_text("")
    weights(folder, "ckpt-10.pt")
    weights(folder, "epoch-0.safetensors")
    return tmp_path / "runs"


@pytest.fixture
def storage(tmp_path: Path) -> Path:
    return tmp_path / "storage"


def weights(folder: Path, name: str) -> None:
    data = name.encode() * 1000
    (folder / name).write_bytes(data)
    told = {"sha256": hashlib.sha256(data).hexdigest()}
    (folder / name).with_suffix(".json").write_text(json.dumps(told))


def finish(folder: Path) -> None:
    (folder / "oof").mkdir()
    (folder / "oof" / "probs.bin").write_bytes(b"p" * 5000)
    (folder / "best.safetensors").write_bytes(b"best")
    (folder / "run.json").write_text("{}")


def tree(root: Path) -> dict[str, bytes]:
    files = (path for path in root.rglob("*") if path.is_file())
    kept_ones = (path for path in files if path.name not in ("mirror.json", ".lock"))
    return {path.relative_to(root).as_posix(): path.read_bytes() for path in kept_ones}


def sound(folder: Path) -> list[str]:
    """Return the checkpoints in a folder; each must be what its sidecar says."""
    found = []
    for sidecar in folder.glob("ckpt-*.json"):
        data = sidecar.with_suffix(".pt").read_bytes()
        assert hashlib.sha256(data).hexdigest() == json.loads(sidecar.read_text())["sha256"]
        found.append(sidecar.stem)
    return sorted(found)


def test_what_is_saved_is_restored_and_copied_once(runs, storage, tmp_path):
    finish(runs / FOLD)
    assert set(save(runs, storage).copied) == {f"{FOLD}/{one}" for one in tree(runs / FOLD)}
    assert save(runs, storage).copied == []
    assert verify(storage).damaged == []
    elsewhere = tmp_path / "elsewhere"
    report = restore(storage, elsewhere)
    assert tree(elsewhere) == tree(runs)
    assert report.folds == [FOLD, f"{FOLD}/oof"]
    assert restore(storage, elsewhere).copied == []
    assert save(elsewhere, storage).copied == [], "the same bytes under another time"


def test_the_newest_two_checkpoints_stay_and_dropped_epochs_go(runs, storage):
    save(runs, storage)
    folder, place = runs / FOLD, storage / FOLD
    for step in (20, 30):
        weights(folder, f"ckpt-{step}.pt")
        save(runs, storage)
    (folder / "epoch-0.safetensors").unlink()
    (folder / "epoch-0.json").unlink()
    weights(folder, "epoch-2.safetensors")
    save(runs, storage)
    names = {path.name for path in place.iterdir()}
    assert {one for one in names if "-" in one} == {
        "ckpt-20.pt", "ckpt-20.json", "ckpt-30.pt", "ckpt-30.json",
        "epoch-2.safetensors", "epoch-2.json",
    }  # fmt: skip
    assert verify(storage).damaged == []


def test_a_checkpoint_without_its_sidecar_or_unlike_it_is_not_copied(runs, storage):
    weights(runs / FOLD, "ckpt-20.pt")
    (runs / FOLD / "ckpt-20.json").unlink()
    weights(runs / FOLD, "ckpt-30.pt")
    (runs / FOLD / "ckpt-30.pt").write_bytes(b"torn")
    save(runs, storage)
    assert not (storage / FOLD / "ckpt-20.pt").exists()
    assert sound(storage / FOLD) == ["ckpt-10"]
    assert not (storage / FOLD / "ckpt-30.pt").exists()


def test_a_damaged_checkpoint_is_left_and_the_one_before_serves(runs, storage, tmp_path):
    weights(runs / FOLD, "ckpt-20.pt")
    finish(runs / FOLD)
    save(runs, storage)
    bad = storage / FOLD / "ckpt-20.pt"
    bad.write_bytes(bad.read_bytes()[:-1] + b"!")
    assert verify(storage).damaged == [f"{FOLD}/ckpt-20.pt"]
    report = restore(storage, tmp_path / "new")
    assert report.damaged == [f"{FOLD}/ckpt-20.pt"]
    folder = tmp_path / "new" / FOLD
    assert not (folder / "ckpt-20.pt").exists()
    assert (folder / "ckpt-10.pt").is_file()
    assert not (folder / "run.json").exists(), "a run is finished only where it is whole"


def test_what_the_storage_lost_is_named(runs, storage):
    save(runs, storage)
    (storage / FOLD / "config.yaml").unlink()
    assert verify(storage).damaged == [f"{FOLD}/config.yaml"]
    assert save(runs, storage).copied == [f"{FOLD}/config.yaml"]
    (storage / FOLD / "mirror.json").write_text("{")
    assert restore(storage, storage.parent / "new").damaged == [f"{FOLD}/mirror.json"]


def test_newer_work_here_is_never_overwritten(runs, storage, tmp_path):
    save(runs, storage)
    other = tmp_path / "other"
    shutil.copytree(runs, other)
    weights(other / FOLD, "ckpt-40.pt")
    (other / FOLD / "metrics.jsonl").write_text("newer")
    assert restore(storage, other).copied == []
    assert (other / FOLD / "metrics.jsonl").read_text() == "newer"


def test_a_copy_is_believed_when_it_is_read_back(runs, storage, monkeypatch):
    real, lies = shelf._read_back, [1, 1]

    def read_back(path):
        return "no such hash" if lies and path.name == "ckpt-10.pt" and lies.pop() else real(path)

    monkeypatch.setattr(shelf, "_read_back", read_back)
    save(runs, storage)
    assert verify(storage).damaged == []
    lies.extend([1] * 100)
    weights(runs / FOLD, "ckpt-10.pt")
    os.utime(runs / FOLD / "ckpt-10.pt", (0, 0))
    shutil.rmtree(storage)
    with pytest.raises(DataError, match="is not what was written to it"):
        save(runs, storage)


def test_a_storage_that_takes_nothing_is_named(runs, storage):
    storage.write_text("a file, no folder")
    with pytest.raises(LocalError, match="cannot copy"):
        save(runs, storage)


def test_a_kill_at_any_point_leaves_a_run_to_go_on_with(runs, storage, tmp_path, monkeypatch):
    """Die at the first flush of a second save, at the second, and so on to its end."""
    monkeypatch.setattr(os, "fsync", lambda _: None)
    save(runs, storage)
    folder = runs / FOLD
    weights(folder, "ckpt-20.pt")
    (folder / "metrics.jsonl").write_text("{}\n{}\n")
    (folder / "config.yaml").write_text("recipe: {}\nresolved: {batch: 4}\n")
    points = 0
    while True:
        place, new = tmp_path / f"storage{points}", tmp_path / f"new{points}"
        shutil.copytree(storage, place)
        died = _dies_at(points, lambda place=place: save(runs, place))
        report = restore(place, new)
        assert report.damaged in ([], [f"{FOLD}/ckpt-20.pt"], [f"{FOLD}/ckpt-20.json"])
        assert "ckpt-10" in sound(new / FOLD)
        assert (new / FOLD / "config.yaml").read_text().startswith("recipe: {}")
        save(runs, place)
        assert verify(place).damaged == []
        assert not list(place.rglob(".*.tmp"))
        assert sound(place / FOLD) == ["ckpt-10", "ckpt-20"]
        if not died:
            break
        points += 1
    assert points > 20


def _dies_at(point: int, work) -> bool:
    child = os.fork()
    if not child:
        seen = [0]

        def fsync(_):
            if seen[0] == point:
                os._exit(9)
            seen[0] += 1

        os.fsync = fsync
        try:
            work()
            os._exit(0)
        finally:
            os._exit(1)
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    assert status in (0, 9)
    return status == 9


def test_rounds_are_made_while_the_block_runs_and_one_at_its_end(runs, storage):
    said: list[str] = []
    with kept(runs, storage, every=0.01, say=said.append):
        until = time.monotonic() + 20
        while not (storage / FOLD / "ckpt-10.pt").is_file() and time.monotonic() < until:
            time.sleep(0.01)
        assert sound(storage / FOLD) or (storage / FOLD / "ckpt-10.pt").is_file()
    with pytest.raises(KeyboardInterrupt), kept(runs, storage, every=60, say=said.append):
        weights(runs / FOLD, "ckpt-20.pt")
        raise KeyboardInterrupt
    assert sound(storage / FOLD) == ["ckpt-10", "ckpt-20"]
    assert said[-1] == f"copied and read back: 2 files of {FOLD}"


def test_a_round_that_fails_is_said_and_the_last_one_raised(runs, storage, monkeypatch):
    said: list[str] = []

    def fails(*_):
        raise LocalError("no room", hint="make some")

    monkeypatch.setattr(mirror, "save", fails)
    with pytest.raises(LocalError), kept(runs, storage, every=0.001, say=said.append):
        until = time.monotonic() + 20
        while not said and time.monotonic() < until:
            time.sleep(0.001)
    assert said[0] == "not copied: no room; make some"

"""Forgetting what happened, or one competition, through any kill."""

from __future__ import annotations

import json

import pytest

from kagflow.errors import UsageError
from kagflow.rehearse import datasets, reset
from kagflow.rehearse.blobs import blob_path, start_upload
from kagflow.rehearse.datasets import Upload
from kagflow.rehearse.runner import open_session
from kagflow.rehearse.store import Store, now


def fill(store, wait_for):
    """One dataset, one kernel with a finished run, one submission, ticked."""
    token = start_upload(store, "a.bin", 1)
    blob_path(store, token).parent.mkdir(exist_ok=True)
    blob_path(store, token).write_bytes(b"x")
    values = {"owner": "o", "slug": "set", "title": "set", "private": True}
    datasets.create(store, values, [Upload(token, "a.bin")])
    wait_for(lambda: datasets.find(store, "o", "set").ready)
    (store.path / "sessions" / "1").mkdir(parents=True)
    with store.write() as db:
        db.execute("INSERT INTO kernel (owner, slug, title) VALUES ('o', 'k', 'k')")
        kernel = db.execute("SELECT MAX(id) AS id FROM kernel").fetchone()["id"]
        version = db.execute(
            "INSERT INTO kernel_version (kernel, number, request, created) VALUES (?, 1, '{}', ?)",
            (kernel, now()),
        ).lastrowid
        session = open_session(db, version, "save", {"machineShape": "NvidiaTeslaT4"}, 60)
        db.execute("UPDATE session SET status = 'COMPLETE', seconds = 10 WHERE id = ?", (session,))
        ref = db.execute(
            "INSERT INTO submission (competition, user, version, session, file_name, description, "
            "status, created) VALUES ('tiny-squares', 'o', ?, ?, 'f', '', 'COMPLETE', ?)",
            (version, session, now()),
        ).lastrowid
        db.execute("INSERT INTO final VALUES (?)", (ref,))
        return ref


def counts(store):
    return {table: store.row(f"SELECT COUNT(*) AS n FROM {table}")["n"] for table in reset.TABLES}


def test_all_is_forgotten_but_the_competitions_and_the_numbers(store, wait_for):
    ref = fill(store, wait_for)
    reset.reset(store.path)
    assert set(counts(store).values()) == {0}
    assert not any((store.path / name).exists() for name in reset.FOLDERS)
    assert store.has_competition("tiny-squares")
    assert fill(store, wait_for) > ref


def test_one_competition_is_forgotten_with_its_submissions(store, wait_for):
    fill(store, wait_for)
    reset.reset(store.path, "tiny-squares")
    assert not store.has_competition("tiny-squares")
    assert counts(store)["submission"] == counts(store)["final"] == 0
    assert counts(store)["kernel_version"] == 1


def test_an_unknown_competition_is_named_with_those_that_are_there(store):
    with pytest.raises(UsageError, match="no 'gone'") as caught:
        reset.reset(store.path, "gone")
    assert "tiny-squares" in caught.value.hint


@pytest.mark.parametrize("at", range(6))
def test_a_cut_reset_is_finished_by_the_next_server(store, monkeypatch, wait_for, at):
    fill(store, wait_for)
    (store.path / reset.MARK).write_text(json.dumps({"competition": None}))
    steps = iter(range(100))

    def dies(real):
        def step(*values):
            if next(steps) == at:
                raise KeyboardInterrupt
            return real(*values)

        return step

    monkeypatch.setattr(reset, "_remove", dies(reset._remove))
    monkeypatch.setattr(Store, "write", dies(Store.write))
    monkeypatch.setattr(reset.durable, "fsync_dir", dies(reset.durable.fsync_dir))
    try:
        reset.finish(store)
    except KeyboardInterrupt:
        monkeypatch.undo()
        reset.finish(store)
    assert set(counts(store).values()) == {0}
    assert not (store.path / reset.MARK).exists()
    assert not any((store.path / name).exists() for name in reset.FOLDERS)

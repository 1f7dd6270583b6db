from __future__ import annotations

import json
import os
import signal
import socket
import sys
import time

import pytest
import requests

from kagflow import process
from kagflow.errors import LocalError
from kagflow.rehearse import server
from kagflow.rehearse.store import Store


@pytest.fixture
def folder(tmp_path):
    yield tmp_path / "store"
    server.stop(tmp_path / "store")


def listed(running):
    answer = requests.post(
        f"{running.url}/v1/competitions.CompetitionApiService/ListCompetitions",
        "{}",
        auth=("me", "local"),
    )
    return [entry["title"] for entry in answer.json()["competitions"]]


def test_one_server_starts_answers_and_stops(folder):
    begun = time.monotonic()
    first = server.ensure(folder)
    seconds = time.monotonic() - begun
    assert first.started
    assert seconds < 5, "1.5 s on a quiet machine"
    second = server.ensure(folder)
    assert (second.url, second.pid, second.started) == (first.url, first.pid, False)
    assert first.url.startswith("http://127.0.0.1:")
    assert (folder / "server.json").stat().st_mode & 0o77 == 0, "it holds the token"
    assert server.stop(folder)
    assert server.status(folder) is None
    assert not server.stop(folder)


def test_two_at_once_start_one(folder):
    code = (
        "import sys; from pathlib import Path; from kagflow.rehearse import server; "
        "print(server.ensure(Path(sys.argv[1])).pid)"
    )
    both = [
        process.spawn([sys.executable, "-c", code, folder], stdout=process.PIPE) for _ in range(2)
    ]
    pids = {child.communicate(timeout=40)[0] for child in both}
    assert len(pids) == 1
    assert pids.pop().strip().isdigit()


def test_state_and_port_survive_a_kill(folder, tiny, tiny_folder):
    first = server.ensure(folder)
    Store(folder).add_competition(tiny.make_facts(), tiny_folder)
    assert listed(first) == ["Tiny Squares"]
    os.kill(first.pid, signal.SIGKILL)
    while server.status(folder) is not None:
        time.sleep(0.02)
    second = server.ensure(folder)
    assert second.started
    assert (second.url, listed(second)) == (first.url, ["Tiny Squares"])


def test_a_stale_file_that_names_another_server_is_not_believed(folder, kaggle_store):
    other = json.loads((kaggle_store.path / "server.json").read_text())
    folder.mkdir(parents=True)
    (folder / "server.json").write_text(json.dumps({**other, "store": "not this one"}))
    assert server.status(folder) is None
    running = server.ensure(folder)
    assert running.url != other["url"]
    assert server.status(kaggle_store.path) is not None


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"url": "http://127.0.0.1:9", "store": "x"}'])
def test_a_damaged_file_is_no_server(folder, text):
    folder.mkdir(parents=True)
    (folder / "server.json").write_text(text)
    assert server.status(folder) is None


def test_a_server_that_can_not_start_says_why(folder):
    folder.mkdir(parents=True)
    (folder / "kaggle.sqlite3").write_text("this is no database, but long enough to be one" * 9)
    with pytest.raises(LocalError, match="not a database"):
        server.ensure(folder)


def test_small_answers_are_sent_at_once():
    with (
        server.listen(0) as bound,
        socket.create_connection(bound.getsockname()),
        bound.accept()[0] as accepted,
    ):
        assert accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)

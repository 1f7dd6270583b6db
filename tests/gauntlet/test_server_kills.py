"""kill -9 of the embedded Kaggle in the middle of upload, version, push and submit.

What was acknowledged is there, nothing is half there, and the same command ends the road.
"""

from __future__ import annotations

import importlib.util
import os
import random
import re
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from kagflow.errors import KagflowError, RefusedError, RemoteError
from kagflow.rehearse import datasets, server
from kagflow.rehearse import settings as settings_file
from kagflow.rehearse.store import OPEN, Store
from kagflow.ship.records import Records
from kagflow.ship.remote import Remote
from kagflow.ship.submit import SubmitRequest, execute, make_plan

SHARE, TOTAL = 5, 200
SLUG = "tiny-squares"
# A road takes about half a second; some kills come after its end.
LATEST = 0.6


def load(name):
    path = Path(__file__).parents[1] / name
    spec = importlib.util.spec_from_file_location(f"kills_{path.stem}", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


class Forge:
    """Starts servers quickly, and ends every one."""

    def __init__(self):
        self.process = subprocess.Popen(
            [sys.executable, Path(__file__).with_name("server_child.py")],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.pids = set()

    def start(self, store):
        self.process.stdin.write(f"{store}\n")
        self.process.stdin.flush()
        pid = int(self.process.stdout.readline())
        self.pids.add(pid)
        deadline = time.monotonic() + 30
        while (found := server.status(store)) is None or found.pid != pid:
            assert time.monotonic() < deadline
            time.sleep(0.005)
        return found

    def kill(self, pid):
        if pid in self.pids:
            self.pids.remove(pid)
            os.kill(pid, signal.SIGKILL)

    def close(self):
        for pid in list(self.pids):
            self.kill(pid)
        self.process.stdin.close()
        self.process.wait(10)


@pytest.fixture(scope="module")
def forge():
    one = Forge()
    yield one
    one.close()


@pytest.fixture
def play(forge, tmp_path):
    """Play one numbered kill; return what went wrong, None for nothing."""
    tiny, roads = load("rehearse/tiny.py"), load("ship/test_submit.py")
    data = tiny.make_folder(tmp_path / "tiny")

    def one(number):
        rng = random.Random(f"kill {number}")
        folder = tmp_path / str(number)
        store = Store(folder / "store")
        store.add_competition(tiny.make_facts(rerun=rng.choice(("hidden", "none"))), data)
        settings_file.change(store.path, dataset_ready_s=0.02)
        game = Game(roads, folder, rng)
        running = forge.start(store.path)
        killer = threading.Timer(rng.uniform(0, LATEST), forge.kill, [running.pid])
        killer.start()
        outcome = game.run(running.url)
        killer.join()
        again = forge.start(store.path)
        try:
            return game.judge(store, again.url, outcome)
        finally:
            forge.kill(again.pid)

    return one


class Game:
    """One pack on its way, and what the server said of it."""

    def __init__(self, roads, folder, rng):
        self.folder, self.roads = folder, roads
        self.pack = roads.make_pack(folder / "packs", rng.randbytes(rng.randint(1, 300_000)))
        self.kernel = roads.make_kernel(folder / "kernel", roads.QUICK, account="local", slug=SLUG)
        self.told = []
        self.failures = 0

    def run(self, url):
        remote = Remote(
            "local",
            url=url,
            state=self.folder / "state",
            sleep=lambda seconds: time.sleep(min(seconds, 0.01)),
        )
        for name in ("dataset_create_or_version", "push_kernel", "submit"):
            setattr(remote, name, self._noting(name, getattr(remote, name)))
        records = Records(self.folder / "records")
        try:
            wish = SubmitRequest("tiny", SLUG, self.pack, self.kernel, 60)
            execute(make_plan(wish, remote, records), remote, records)
        except KagflowError as error:
            failed = isinstance(error, RemoteError) and re.match("kernel .* failed", error.message)
            self.failures += bool(failed)
            return error
        return "success"

    def _noting(self, name, call):
        def noted(*values, **named):
            answer = call(*values, **named)
            self.told.append((name, values[0], answer))
            return answer

        return noted

    def judge(self, store, url, outcome):
        told = list(self.told)
        for _ in range(3):
            if isinstance(outcome, RefusedError) or outcome == "success":
                break
            outcome = self.run(url)
        else:
            return f"did not converge: {outcome!r}"
        return self._lost(store, told) or self._doubled(store) or _torn(store, self.pack)

    def _lost(self, store, told):
        for name, push, answer in told:
            if name == "push_kernel":
                found = store.row(
                    "SELECT 1 FROM kernel_version WHERE number = ?", (answer.version,)
                )
            elif name == "submit":
                found = store.row("SELECT 1 FROM submission WHERE ref = ?", (answer,))
            else:
                found = datasets.find(store, *push.ref.split("/"), answer)
            if found is None:
                return f"lost: {name} {answer}"
        return None

    def _doubled(self, store):
        counts = {
            name: store.row(f"SELECT COUNT(*) AS n FROM {name}")["n"]
            for name in ("dataset_version", "kernel_version", "submission")
        }
        allowed = {"kernel_version": 1 + self.failures, "dataset_version": 2}
        return next(
            (f"{counts}" for name in counts if counts[name] > allowed.get(name, 1)),
            None,
        )


def _torn(store, pack):
    with sqlite3.connect(store.path / "kaggle.sqlite3") as db:
        if db.execute("PRAGMA integrity_check").fetchone()[0] != "ok":
            return "the database is damaged"
        if db.execute("PRAGMA foreign_key_check").fetchall():
            return "the database refers to nothing"
    for row in store.rows("SELECT * FROM blob WHERE done = 1"):
        if (store.path / "blobs" / row["token"]).stat().st_size != row["size"]:
            return f"blob {row['name']} is not whole"
    for part in ("env", "weights"):
        version = datasets.find(store, "local", f"kagflow-tiny-{part}")
        if not version or not version.ready:
            return f"the dataset of {part} is {version}"
        for path in (pack / part).iterdir():
            if (version.tree / path.name).read_bytes() != path.read_bytes():
                return f"wrong bytes in {path.name}"
    stuck = store.row("SELECT * FROM session WHERE status IN (?, ?)", OPEN)
    waits = store.row("SELECT * FROM submission WHERE status = 'PENDING'")
    alone = store.row("SELECT * FROM kernel_version WHERE id NOT IN (SELECT version FROM session)")
    return next((f"left over: {dict(row)}" for row in (stuck, waits, alone) if row), None)


def test_server_kills_share(tally, play):
    tally.share("server kills", play, range(SHARE))


@pytest.mark.gauntlet
def test_server_kills(tally, play):
    tally.full("server kills", play, TOTAL)

"""Fetch again and again, each time in a fork of this one process, as its reader on stdin asks.

Starting Python takes longer than fetching the fixture; a fork has everything imported. One JSON
line in: {"target", "force", "serial", "hold", "delay"}; under "hold" the child's number goes out
and a line comes in before it begins; after "delay" seconds it is killed. One line out: its status.
"""

from __future__ import annotations

import json
import os
import select
import signal
import sys
import tempfile
from concurrent.futures import Future
from pathlib import Path

from kagflow.errors import KagflowError
from kagflow.ship import archive, fetch, remote_download, remote_parts
from kagflow.ship.remote import Remote
from kagflow.task import index
from kagflow.task.spec import TaskSpec
from kagflow.task.surveyed import Plan

SPEC = TaskSpec(slug="gauntlet", kind="segmentation", classes=("1", "2"))


class Serial:
    """Stand where a pool stands, without threads: every syscall is counted in one order."""

    def __init__(self, *_):
        pass

    def __enter__(self):
        return self

    def __exit__(self, *_):
        pass

    def map(self, function, *values):
        return map(function, *values)

    def submit(self, function, *values):
        future = Future()
        try:
            future.set_result(function(*values))
        except Exception as error:  # noqa: BLE001 - as a future does
            future.set_exception(error)
        return future


def child(order, url):
    # Small enough that the fixture comes in several streams, with notes between.
    remote_download.CHUNK, remote_parts.NOTE, index.CHUNK = 1 << 14, 1 << 16, 4
    remote_download.APART = 1 << 12 if order["serial"] else 1 << 17
    if order["serial"]:
        for room in (archive, index, remote_download):
            room.ThreadPoolExecutor = Serial
    target = Path(order["target"])
    remote = Remote("local", url=url, state=target.parent / "client")
    # A server that is asked by a killed client may be slow to notice; nobody here waits for it.
    remote.transport.sleep = lambda _: None
    wish = fetch.Wish(force=order["force"])
    fetch.fetch(remote, SPEC, target, wish=wish)
    fetch.index_data(target, SPEC, Plan(2))


def run(order, url):
    ready, go = os.pipe()
    pid = os.fork()
    if pid == 0:
        status = 0
        try:
            os.read(ready, 1)
            child(order, url)
        except KagflowError as error:
            status = error.exit_code
            sys.stderr.write(f"{type(error).__name__}: {error.message}\n")
        except BaseException as error:  # noqa: BLE001 - told by its status
            status = 99
            sys.stderr.write(f"raw {type(error).__name__}: {error}\n")
        sys.stderr.flush()
        os._exit(status)
    if order["hold"]:
        say(pid)
        sys.stdin.readline()
    os.write(go, b"x")
    if order["delay"] is not None:
        notice = os.pidfd_open(pid)
        if not select.select([notice], [], [], order["delay"])[0]:
            os.kill(pid, signal.SIGKILL)
        os.close(notice)
    _, status = os.waitpid(pid, 0)
    os.close(ready)
    os.close(go)
    return os.waitstatus_to_exitcode(status)


def say(value):
    print(json.dumps(value), flush=True)


if __name__ == "__main__":
    # Once in this very process, so that nothing is imported or looked up for the first time later.
    with tempfile.TemporaryDirectory() as folder:
        first = {"target": f"{folder}/data", "force": False, "serial": False}
        child(first, sys.argv[1])
    say("ready")
    for line in iter(sys.stdin.readline, ""):
        say(run(json.loads(line), sys.argv[1]))

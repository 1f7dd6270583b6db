"""Fetch again and again, as forked.py does an order: {"target", "force", "serial"}."""

from __future__ import annotations

import sys
import tempfile
from concurrent.futures import Future
from pathlib import Path

import forked

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


if __name__ == "__main__":
    # Once in this very process, so that nothing is imported or looked up for the first time later.
    with tempfile.TemporaryDirectory() as folder:
        first = {"target": f"{folder}/data", "force": False, "serial": False}
        child(first, sys.argv[1])
    forked.serve(child, sys.argv[1])

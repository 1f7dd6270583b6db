"""Do an order again and again, each time in a fork of one process, and kill it where it is asked.

Starting Python takes longer than what is killed; a fork has everything imported. One JSON line in;
under "hold" the child's number goes out and a line comes in before it begins; after "delay" seconds
it is killed; "copies" begin at once, each told its number. One line out: its status, or all.
"""

from __future__ import annotations

import json
import os
import select
import signal
import sys

from kagflow.errors import KagflowError


def serve(child, url):
    """Do each order that comes on stdin by `child(order, url)`."""
    say("ready")
    for line in iter(sys.stdin.readline, ""):
        order = json.loads(line)
        statuses = run(child, order, url)
        say(statuses if "copies" in order else statuses[0])


def run(child, order, url):
    ready, go = os.pipe()
    copies = order.get("copies", 1)
    pids = [_fork(child, {**order, "copy": number}, url, ready) for number in range(copies)]
    if order.get("hold"):
        say(pids[0])
        sys.stdin.readline()
    os.write(go, b"x" * copies)
    if order.get("delay") is not None:
        _kill(pids[0], order["delay"])
    statuses = [os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in pids]
    os.close(ready)
    os.close(go)
    return statuses


def _fork(child, order, url, ready):
    pid = os.fork()
    if pid:
        return pid
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


def _kill(pid, delay):
    notice = os.pidfd_open(pid)
    if not select.select([notice], [], [], delay)[0]:
        os.kill(pid, signal.SIGKILL)
    os.close(notice)


def say(value):
    print(json.dumps(value), flush=True)

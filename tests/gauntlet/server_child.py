"""Fork servers of stores: one line in, a store's folder; one line out, the server's number.

Starting Python takes longer than what a server is killed in the middle of.
"""

from __future__ import annotations

import functools
import importlib.util
import os
import signal
import sys
from pathlib import Path

from kagflow.rehearse import app, runner, server, wire  # noqa: F401 -- imported once for all


def main() -> None:
    path = Path(__file__).with_name("served.py")
    spec = importlib.util.spec_from_file_location("served_for_children", path)
    served = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(served)
    runner.Runner = functools.partial(runner.Runner, execute=served.instant)
    wire.rpcs()
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    for line in sys.stdin:
        child = os.fork()
        if child == 0:
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            server.serve(Path(line.strip()))
        print(child, flush=True)


if __name__ == "__main__":
    main()

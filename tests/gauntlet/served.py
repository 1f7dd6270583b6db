"""An embedded Kaggle inside the test process: faults in the test's hand, kernels instant."""

from __future__ import annotations

import json
import shutil
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import uvicorn

from kagflow.rehearse import app, server
from kagflow.rehearse.faults import Plan
from kagflow.rehearse.runner import Execute, Runner
from kagflow.rehearse.sandbox import SandboxResult, SandboxSpec
from kagflow.rehearse.store import Store


class Served(NamedTuple):
    """A store, what goes wrong with it, and its address."""

    store: Store
    plan: Plan
    url: str

    def user_url(self, user: str) -> str:
        """Return the address under which an account of this name speaks."""
        return self.url.replace("http://", f"http://{user}:local@")


def instant(spec: SandboxSpec, *, log_file: Path) -> SandboxResult:
    """Stand where the sandbox stands: the kernel hands in the sample submission."""
    sample = spec.competition_input / "sample_submission.csv"
    if sample.is_file():
        shutil.copyfile(sample, spec.working / "submission.csv")
    line = {"stream_name": "stdout", "time": 0.01, "data": "done\n"}
    log_file.write_text("[" + json.dumps(line) + "\n]")
    return SandboxResult("bwrap", 0, 0.01, 1, timed_out=False, out_of_memory=False, log=[])


@contextmanager
def serve(folder: Path, execute: Execute = instant) -> Iterator[Served]:
    """Serve a store on a free port until the block ends; `execute` runs the kernels."""
    store, plan = Store(folder), Plan()
    runner = Runner(store, execute=execute)
    runner.start()
    bound = server.listen(0)
    url = f"http://127.0.0.1:{bound.getsockname()[1]}"
    config = uvicorn.Config(
        app.build(store, runner, url, plan=plan),
        log_level="critical",
        http="h11",
        lifespan="off",
        date_header=False,
        proxy_headers=False,
        timeout_graceful_shutdown=1,
    )
    running = uvicorn.Server(config)
    thread = threading.Thread(target=running.run, kwargs={"sockets": [bound]}, daemon=True)
    thread.start()
    while not running.started:
        time.sleep(0.005)
    try:
        yield Served(store, plan, url)
    finally:
        running.should_exit = True
        thread.join(5)

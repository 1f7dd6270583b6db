"""Start, find and stop the embedded Kaggle: one detached process a store, on loopback only."""

from __future__ import annotations

import json
import os
import signal
import socket
import sys
import time
import urllib.request
from dataclasses import dataclass, replace
from pathlib import Path
from urllib.parse import urlsplit

from kagflow import durable, process
from kagflow.errors import LocalError

START_SECONDS = 30.0
LOCK = "server.lock"
STOP_SECONDS = 10.0
# Straight to loopback, whatever proxies the environment names.
_DIRECT = urllib.request.build_opener(urllib.request.ProxyHandler({}))


@dataclass(frozen=True)
class Server:
    """Say where a store is served; `started` is whether this call started it."""

    url: str
    pid: int
    started: bool


def ensure(store_dir: Path) -> Server:
    """Return the running server of a store, started on demand.

    Raises LocalError when it does not answer in time.
    """
    from filelock import FileLock

    store_dir.mkdir(parents=True, exist_ok=True)
    running = status(store_dir)
    if running is not None:
        return running
    with FileLock(store_dir / LOCK, timeout=START_SECONDS):
        running = status(store_dir)
        return running or _start(store_dir)


def status(store_dir: Path) -> Server | None:
    """Return the server that answers for this very store, None when there is none."""
    found = _read(store_dir)
    if found is None:
        return None
    try:
        with _DIRECT.open(f"{found['url']}/kagflow/health", timeout=2) as response:
            answer = json.load(response)
    except (OSError, ValueError):
        return None
    # Another program may have the port by now, or a server of another store.
    if not isinstance(answer, dict) or answer.get("store") != found["store"]:
        return None
    return Server(found["url"], int(answer["pid"]), started=False)


def stop(store_dir: Path) -> bool:
    """End the server of a store and wait for it; False when none ran."""
    running = status(store_dir)
    if running is None:
        return False
    os.kill(running.pid, signal.SIGTERM)
    deadline = time.monotonic() + STOP_SECONDS
    while status(store_dir) is not None:
        if time.monotonic() > deadline:
            os.kill(running.pid, signal.SIGKILL)
            break
        time.sleep(0.05)
    return True


def _read(store_dir: Path) -> dict[str, str] | None:
    try:
        found = json.loads((store_dir / "server.json").read_text())
        return {"url": str(found["url"]), "store": str(found["store"])}
    except (OSError, ValueError, TypeError, KeyError):
        return None


def _start(store_dir: Path) -> Server:
    log = store_dir / "server.log"
    with log.open("ab") as sink:
        child = process.spawn(
            [sys.executable, "-m", "kagflow.rehearse.server", store_dir],
            stdout=sink,
            stderr=sink,
        )
    deadline = time.monotonic() + START_SECONDS
    while child.poll() is None and time.monotonic() < deadline:
        running = status(store_dir)
        if running is not None:
            return replace(running, started=True)
        time.sleep(0.03)
    child.poll()
    tail = log.read_text(errors="replace")[-1500:].strip()
    raise LocalError(f"the embedded Kaggle did not start; its log {log} ends: {tail}")


def serve(store_dir: Path) -> None:
    """Serve a store until SIGTERM; writes server.json once the port is bound."""
    import uvicorn

    from kagflow.rehearse import app, datasets, reset, wire
    from kagflow.rehearse.runner import Runner
    from kagflow.rehearse.store import Store

    store = Store(store_dir)
    reset.finish(store)
    bound = _bind(_read(store.path))
    url = f"http://127.0.0.1:{bound.getsockname()[1]}"
    runner = Runner(store)
    runner.start()
    datasets.resume_processing(store)
    durable.write_json(
        store.path / "server.json",
        {
            "url": url,
            "pid": os.getpid(),
            "store": store.id,
            "username": wire.USER,
            "token": store.token,
        },
    )
    (store.path / "server.json").chmod(0o600)
    config = uvicorn.Config(
        app.build(store, runner, url),
        log_level="warning",
        http="h11",
        lifespan="off",
        # The application sets the clock that it shows.
        date_header=False,
        # A header must not choose whose process is at the other end.
        proxy_headers=False,
        timeout_graceful_shutdown=1,
    )
    uvicorn.Server(config).run(sockets=[bound])
    # A kernel may be running on a thread: its sandbox dies with this process, the store knows.
    os._exit(0)


def _bind(last: dict[str, str] | None) -> socket.socket:
    """Listen on loopback, on the last port if it is free: half-done uploads name it."""
    port = urlsplit(last["url"]).port if last else 0
    try:
        return listen(port or 0)
    except OSError:
        return listen(0)


def listen(port: int) -> socket.socket:
    """Return a socket on loopback whose connections send small answers at once.

    asyncio does so only for sockets that name their protocol; else every second packet of an
    answer waits 40 ms for an acknowledgement.
    """
    bound = socket.create_server(("127.0.0.1", port), backlog=128)
    bound.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return bound


if __name__ == "__main__":
    serve(Path(sys.argv[1]))

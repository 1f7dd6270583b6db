"""A scripted HTTP server that misbehaves on demand, and an embedded Kaggle of this run's own."""

from __future__ import annotations

import importlib.util
import json
import logging
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from kagflow.ship.remote import Remote

# The same competition, where the saved output itself is scored: half the kernel runs.
SAVED = "tiny-saved"


class Script:
    """Answer each path with a queue of (status, headers, body); the last one stays.

    `seen` holds (method, path, headers, body). A body of None drops the connection; `cut` bytes
    of a body are sent where the headers carry X-Cut.
    """

    def __init__(self) -> None:
        self.answers: dict[str, list[object]] = {}
        self.default: object = (404, {}, b'{"code": 404, "message": "not scripted"}')
        self.seen: list[tuple[str, str, dict[str, str], bytes]] = []

    def on(self, path: str, *answers: object) -> None:
        self.answers[path] = list(answers)

    def rpc(self, method: str, *answers: object) -> None:
        """Script an RPC by the last part of its path; a dict is a 200 with JSON."""
        self.on(method, *answers)

    def bodies(self, method: str) -> list[dict]:
        return [json.loads(body) for _, path, _, body in self.seen if path.endswith(f"/{method}")]

    def take(self, path: str) -> object:
        key = path if path in self.answers else path.rsplit("/", 1)[-1]
        queue = self.answers.get(key)
        if not queue:
            return self.default
        return queue.pop(0) if len(queue) > 1 else queue[0]


def handler(script: Script) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True

        def log_message(self, *_: object) -> None:
            pass

        def handle_any(self) -> None:
            size = int(self.headers.get("Content-Length") or 0)
            body = self.rfile.read(size)
            path = self.path.partition("?")[0]
            script.seen.append((self.command, path, dict(self.headers), body))
            answer = script.take(path)
            if callable(answer):
                answer = answer(self.command, dict(self.headers), body)
            if isinstance(answer, dict):
                answer = (200, {"Content-Type": "application/json"}, json.dumps(answer).encode())
            if answer is None:
                self.close_connection = True
                self.connection.close()
                return
            self.reply(*answer)

        def reply(self, status: int, headers: dict[str, str], body: bytes) -> None:
            cut = headers.pop("X-Cut", None)
            self.send_response(status)
            for name, value in {"Content-Length": str(len(body)), **headers}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(body if cut is None else body[: int(cut)])
            if cut is not None:
                headers["X-Cut"] = cut
                self.close_connection = True
                self.wfile.flush()
                self.connection.close()

        do_GET = do_POST = do_PUT = handle_any  # noqa: N815

    return Handler


class Quiet(ThreadingHTTPServer):
    """Say nothing of a client that hangs up: stderr belongs to what is tested."""

    def handle_error(self, request: object, client_address: object) -> None:
        pass


@pytest.fixture(autouse=True)
def _own_secrets() -> Iterator[None]:
    """Forget the secrets that a test made logging hide."""
    before = logging.getLogRecordFactory()
    yield
    logging.setLogRecordFactory(before)


@pytest.fixture
def script() -> Script:
    return Script()


@pytest.fixture
def stub(script: Script) -> Iterator[str]:
    """The URL of the scripted server."""
    server = Quiet(("127.0.0.1", 0), handler(script))
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


@pytest.fixture
def remote(stub: str, tmp_path: Path) -> Remote:
    """A Remote of the scripted server that never really sleeps."""
    return Remote("local", url=stub, state=tmp_path / "state", sleep=lambda _: None)


@pytest.fixture(scope="session")
def tiny():
    """The module that makes the embedded Kaggle's tiny competition."""
    path = Path(__file__).parents[1] / "rehearse" / "tiny.py"
    spec = importlib.util.spec_from_file_location("tiny_for_ship", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def embedded(tiny, tmp_path_factory) -> Iterator[str]:
    """The URL of an embedded Kaggle with the tiny competition, with and without a rerun."""
    from kagflow.rehearse import server, settings
    from kagflow.rehearse.store import Store

    store = tmp_path_factory.mktemp("kaggle") / "store"
    folder = tiny.make_folder(tmp_path_factory.mktemp("tiny"), train=8)
    facts = tiny.make_facts(host="kagflow-mini")
    saved = replace(facts, slug=SAVED, rerun="none", task=replace(facts.task, slug=SAVED))
    for one in (facts, saved):
        Store(store).add_competition(one, folder)
    # Every run draws where its inputs are, the same in each run of the tests.
    settings.change(store, mount_layout="random", mount_seed=1)
    yield server.ensure(store).url
    server.stop(store)


@pytest.fixture
def local(embedded: str, tmp_path: Path) -> Callable[[], Remote]:
    """Make a Remote of the embedded Kaggle, with an account of the test's own."""
    user = f"user{abs(hash(tmp_path)) % 10**8}"

    def make() -> Remote:
        url = embedded.replace("http://", f"http://{user}:local@")
        return Remote("local", url=url, state=tmp_path / "state")

    return make

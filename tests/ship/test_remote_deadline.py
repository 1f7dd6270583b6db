"""An answer that comes byte by byte does not hold a command for hours."""

from __future__ import annotations

import socket
import threading
import time

import pytest

from kagflow.errors import NetworkError
from kagflow.ship import remote_transport
from kagflow.ship.remote import Remote

HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n"


@pytest.fixture
def drip():
    """Serve one byte of an endless answer every hundredth of a second."""
    listener = socket.create_server(("127.0.0.1", 0))
    over = threading.Event()

    def answer(wire: socket.socket) -> None:
        with wire:
            wire.recv(65536)
            wire.sendall(HEAD)
            while not over.wait(0.01):
                try:
                    wire.sendall(b"1\r\n \r\n")
                except OSError:
                    return

    def serve() -> None:
        while True:
            try:
                wire, _ = listener.accept()
            except OSError:
                return
            threading.Thread(target=answer, args=(wire,), daemon=True).start()

    threading.Thread(target=serve, daemon=True).start()
    yield f"http://u:k@127.0.0.1:{listener.getsockname()[1]}"
    over.set()
    listener.close()


def test_a_dripping_answer_ends(drip, tmp_path, monkeypatch):
    monkeypatch.setattr(remote_transport, "ANSWER", 0.2)
    monkeypatch.setattr(remote_transport, "ATTEMPTS", 2)
    monkeypatch.setattr(time, "sleep", lambda _: None)
    remote = Remote("local", url=drip, state=tmp_path)
    with pytest.raises(NetworkError, match="no answer"):
        remote.quota()

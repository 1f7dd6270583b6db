"""Carry out planned faults between the wire and the application, and set the clock it shows."""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
import time
from collections.abc import Awaitable, Callable, Mapping
from email.utils import formatdate
from typing import Any

from starlette.requests import Request
from starlette.responses import HTMLResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from kagflow.errors import KagflowError
from kagflow.rehearse.faults import Fault, Plan
from kagflow.rehearse.wire import error_response

RANGES = (b"range", b"if-range")
XOR = 0x5A
Skew = Callable[[], float]


class Misbehaving:
    """Wrap the application; a request without a planned fault passes untouched."""

    def __init__(self, app: ASGIApp, plan: Plan, skew: Skew) -> None:
        self.app, self.plan, self.skew = app, plan, skew

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request, or fail to."""
        endpoint = endpoint_of(scope.get("path", "")) if scope["type"] == "http" else None
        try:
            ahead, fault = self.skew(), self._fault(endpoint, scope)
        except KagflowError as error:
            # Somebody wrote settings or faults that can't be: say so, rather than guess.
            said = error_response(400, f"{error.message} {error.hint}".strip())
            await said(scope, receive, send)
            return
        if fault is None or endpoint is None or fault.do == "clock":
            await self.app(scope, receive, _dated(send, ahead + (fault.seconds if fault else 0.0)))
            return
        wire = _Wire(self.app, scope, receive, _dated(send, ahead), endpoint, _closer(send))
        await ACTS[fault.do](wire, fault)

    def _fault(self, endpoint: str | None, scope: Scope) -> Fault | None:
        if endpoint is None:
            return None
        names = {name for name, _ in scope["headers"]}
        return self.plan.take(endpoint, ranged=bool(names & {b"range", b"content-range"}))


class _Wire:
    """One request, the application that would answer it, and the connection under both."""

    def __init__(
        self,
        app: ASGIApp,
        scope: Scope,
        receive: Receive,
        send: Send,
        endpoint: str,
        close: Callable[[], None],
    ) -> None:
        self.app, self.scope, self.receive, self.send = app, scope, receive, send
        self.endpoint, self._close = endpoint, close

    async def body(self) -> bytes:
        """Return the request's whole body."""
        return await Request(self.scope, self.receive).body()

    async def reply(self, response: Response) -> None:
        """Answer instead of the application, once the request is read."""
        with contextlib.suppress(Exception):
            await self.body()
        await response(self.scope, self.receive, self.send)

    async def abort(self, seconds: float = 0.0) -> None:
        """Close the connection without another byte, after a while of silence."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._gone()
        self._close()
        await self._gone()

    async def result(self, receive: Receive | None = None) -> tuple[Message, bytes]:
        """Let the application answer, and return its head and body instead of sending them."""
        head: Message = {}
        parts: list[bytes] = []

        async def keep(message: Message) -> None:
            if message["type"] == "http.response.start":
                head.update(message)
            else:
                parts.append(message.get("body", b""))

        await self.app(self.scope, receive or self.receive, keep)
        return head, b"".join(parts)

    async def _gone(self) -> None:
        while (await self.receive())["type"] != "http.disconnect":
            pass


async def _status(wire: _Wire, fault: Fault) -> None:
    if fault.shape == "empty":
        response = Response(status_code=fault.status)
    else:
        response = error_response(fault.status, fault.text, fault.shape)
    if fault.retry_after is not None:
        text = str(fault.retry_after)
        if text.startswith("date+"):
            text = formatdate(time.time() + float(text[5:]), usegmt=True)
        response.headers["Retry-After"] = text
    await wire.reply(response)


async def _drop(wire: _Wire, _fault: Fault) -> None:
    await wire.body()
    await wire.abort()


async def _hang(wire: _Wire, fault: Fault) -> None:
    await wire.body()
    await wire.abort(fault.seconds)


async def _slow(wire: _Wire, fault: Fault) -> None:
    await asyncio.sleep(fault.seconds)
    await wire.app(wire.scope, wire.receive, wire.send)


async def _lost(wire: _Wire, _fault: Fault) -> None:
    await wire.result()
    await wire.abort()


async def _page(wire: _Wire, _fault: Fault) -> None:
    await wire.result()
    await HTMLResponse("<html>Please sign in</html>")(wire.scope, wire.receive, wire.send)


async def _cut(wire: _Wire, fault: Fault) -> None:
    if wire.endpoint == "upload":
        await _cut_request(wire, fault.byte)
        return
    left = -1

    async def shorter(message: Message) -> None:
        nonlocal left
        if message["type"] == "http.response.start":
            # At least the last byte is missing, however short the answer is.
            left = min(fault.byte, max(_length(message) - 1, 0))
            await wire.send(message)
            return
        body = message.get("body", b"")[: max(left, 0)]
        left -= len(body)
        await wire.send({"type": "http.response.body", "body": body, "more_body": True})

    # The server closes a connection whose answer is not whole.
    await wire.app(wire.scope, wire.receive, shorter)


async def _cut_request(wire: _Wire, byte: int) -> None:
    left = byte

    async def shorter() -> Message:
        nonlocal left
        message = await wire.receive()
        body = message.get("body", b"")[: max(left, 0)]
        if not body:
            return {"type": "http.disconnect"}
        left -= len(body)
        return {"type": "http.request", "body": body, "more_body": True}

    await wire.result(shorter)
    await wire.abort()


async def _garbage(wire: _Wire, fault: Fault) -> None:
    at = 0

    async def spoilt(message: Message) -> None:
        nonlocal at
        if message["type"] == "http.response.body":
            body = message.get("body", b"")
            keep = max(fault.byte - at, 0)
            at += len(body)
            message = {**message, "body": body[:keep] + bytes(one ^ XOR for one in body[keep:])}
        await wire.send(message)

    await wire.app(wire.scope, wire.receive, spoilt)


async def _whole(wire: _Wire, _fault: Fault) -> None:
    headers = [pair for pair in wire.scope["headers"] if pair[0] not in RANGES]
    await wire.app({**wire.scope, "headers": headers}, wire.receive, wire.send)


async def _shifted(wire: _Wire, _fault: Fault) -> None:
    headers = [
        (name, _shift(value) if name == b"range" else value)
        for name, value in wire.scope["headers"]
    ]
    await wire.app({**wire.scope, "headers": headers}, wire.receive, wire.send)


async def _expired(wire: _Wire, _fault: Fault) -> None:
    if wire.endpoint == "upload":
        await wire.reply(error_response(404, "no such upload"))
        return
    body = "<Error><Code>ExpiredToken</Code></Error>"
    await wire.reply(Response(body, 403, media_type="text/xml"))


async def _asked(wire: _Wire, fault: Fault) -> None:
    changed = json.dumps(_merged(await wire.body(), fault.fields)).encode()

    async def other() -> Message:
        return {"type": "http.request", "body": changed, "more_body": False}

    await wire.app(wire.scope, other, wire.send)


async def _answer(wire: _Wire, fault: Fault) -> None:
    if not fault.effect:
        await wire.reply(_json(fault.fields))
        return
    head, body = await wire.result()
    if head.get("status") == 200:
        body = json.dumps(_merged(body, fault.fields)).encode()
    response = Response(body, int(head.get("status", 500)), media_type="application/json")
    await response(wire.scope, wire.receive, wire.send)


ACTS: Mapping[str, Callable[[_Wire, Fault], Awaitable[None]]] = {
    "status": _status,
    "drop": _drop,
    "hang": _hang,
    "slow": _slow,
    "lost": _lost,
    "page": _page,
    "cut": _cut,
    "garbage": _garbage,
    "whole": _whole,
    "shifted": _shifted,
    "expired": _expired,
    "asked": _asked,
    "answer": _answer,
}


def endpoint_of(path: str) -> str | None:
    """Return the name that a fault calls an endpoint by; None for kagflow's own."""
    first = path.strip("/").split("/")[0]
    if first in ("upload", "storage"):
        return first
    if "/kernels/logs/stream/" in path:
        return "log"
    return path.rpartition("/")[2] if re.match(r"(/api)?/v1/", path) else None


def _dated(send: Send, ahead: float) -> Send:
    async def dated(message: Message) -> None:
        if message["type"] == "http.response.start":
            date = formatdate(time.time() + ahead, usegmt=True).encode()
            message = {**message, "headers": [*message.get("headers", []), (b"date", date)]}
        await send(message)

    return dated


def _closer(send: Send) -> Callable[[], None]:
    """Return what closes the connection at once: uvicorn's own transport, behind its `send`."""
    transport = getattr(getattr(send, "__self__", None), "transport", None)
    return transport.abort if transport is not None else lambda: None


def _length(message: Message) -> int:
    lengths = [value for name, value in message.get("headers", []) if name == b"content-length"]
    return int(lengths[0]) if lengths else 0


def _shift(value: bytes) -> bytes:
    first = re.match(rb"bytes=(\d+)-", value)
    return f"bytes={int(first[1]) // 2}-".encode() if first else value


def _merged(body: bytes, fields: Mapping[str, Any]) -> dict[str, Any]:
    values = {**json.loads(body or b"{}"), **fields}
    return {key: value for key, value in values.items() if value is not None}


def _json(fields: Mapping[str, Any]) -> Response:
    return Response(json.dumps(dict(fields)), media_type="application/json")

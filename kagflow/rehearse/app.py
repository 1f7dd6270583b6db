"""The ASGI application: RPC dispatch, the log stream, uploads, storage, and the proxy's manners."""

from __future__ import annotations

import asyncio
import json
import os
import re
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any

from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from kagflow.rehearse import (
    blobs,
    wire_account,
    wire_competitions,
    wire_datasets,
    wire_kernels,
    wire_outputs,
    wire_submissions,
)
from kagflow.rehearse.blobs import Links
from kagflow.rehearse.faults import FilePlan, Plan
from kagflow.rehearse.misbehave import Misbehaving
from kagflow.rehearse.peers import may_talk
from kagflow.rehearse.runner import Runner, session_folder
from kagflow.rehearse.store import OPEN, Store
from kagflow.rehearse.wire import (
    Call,
    Handler,
    WireError,
    decode,
    encode,
    error_response,
    rpcs,
    user_of,
)

HANDLERS: Mapping[str, Handler] = {
    **wire_account.HANDLERS,
    **wire_competitions.HANDLERS,
    **wire_submissions.HANDLERS,
    **wire_datasets.HANDLERS,
    **wire_kernels.HANDLERS,
    **wire_outputs.HANDLERS,
}
FOLLOW_SECONDS = 0.2


def build(store: Store, runner: Runner, base: str, *, plan: Plan | None = None) -> ASGIApp:
    """Return the application for a store served at `base`, such as http://127.0.0.1:8000.

    `plan` holds faults; without one they come from the store's file.
    """
    routes = [
        Route("/upload/{token}", blobs.put_upload, methods=["PUT"]),
        Route("/storage/{path:path}", blobs.get_storage, methods=["GET"]),
        Route("/kagflow/health", _health, methods=["GET"]),
    ]
    # The live service has no /api before the version, the SDK's LOCAL environment has.
    for prefix in ("/api/v1", "/v1"):
        routes += [
            Route(f"{prefix}/kernels/logs/stream/{{owner}}/{{slug}}", _log_stream, methods=["GET"]),
            Route(f"{prefix}/{{service}}/{{method}}", _rpc, methods=["POST"]),
        ]
    app = Starlette(routes=routes)
    app.state.links = Links(base, store)
    app.state.runner = runner
    faulty = Misbehaving(app, plan or FilePlan(store.path), lambda: store.settings.clock_skew_s)
    return _Proxy(faulty)


class _Proxy:
    """Take a forward proxy's targets: `POST http://host/path` is ours, CONNECT is refused."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            refused = _refusal(scope)
            if refused:
                await error_response(403, refused)(scope, receive, send)
                return
            scope = {**scope, "path": re.sub(r"^https?://[^/]*", "", scope["path"]) or "/"}
        await self.app(scope, receive, send)


def _refusal(scope: Scope) -> str | None:
    if scope["method"] == "CONNECT":
        return "the embedded Kaggle lets nothing leave this machine"
    if not may_talk(scope.get("client"), server=scope.get("server")):
        return "this embedded Kaggle belongs to another user of this machine"
    return None


def _call(request: Request, *, service: str = "") -> Call:
    """Return the caller's rights; raise WireError 401 without them."""
    links: Links = request.app.state.links
    user = user_of(request.headers.get("authorization"), links.store.token)
    if user is None and service not in wire_account.OPEN_TO_ALL:
        raise WireError(401, "Unauthenticated")
    return Call(links.store, request.app.state.runner, links, user or "")


async def _rpc(request: Request) -> Response:
    name = f"{request.path_params['service']}/{request.path_params['method']}"
    try:
        call = _call(request, service=name)
        body = await request.body()
        answer = await run_in_threadpool(_answer, call, name, body)
    except WireError as error:
        return _refused(request, error)
    return answer if isinstance(answer, Response) else JSONResponse(answer)


def _refused(request: Request, error: WireError) -> Response:
    shape = request.app.state.links.store.settings.error_shape
    return error_response(error.status, error.message, shape)


def _answer(call: Call, name: str, body: bytes) -> Any:
    rpc, handler = rpcs().get(name), HANDLERS.get(name)
    if rpc is None:
        raise WireError(404, f"{name} is not a call of Kaggle's API")
    if handler is None:
        raise WireError(501, f"the embedded Kaggle does not have {name}")
    answer = handler(call, decode(rpc.request, body))
    return answer if isinstance(answer, Response) else encode(answer)


async def _health(request: Request) -> Response:
    return JSONResponse({"store": request.app.state.links.store.id, "pid": os.getpid()})


async def _log_stream(request: Request) -> Response:
    """Stream a running version's log as events; a finished one's is a JSON array."""
    parts, label = request.path_params, request.query_params.get("versionLabel")
    try:
        call = _call(request)
        row = await run_in_threadpool(
            wire_kernels.version_of, call, parts["owner"], parts["slug"], label
        )
    except WireError as error:
        return _refused(request, error)
    if row["status"] in OPEN:
        return StreamingResponse(_follow(call, row["session"]), media_type="text/event-stream")
    return Response(wire_outputs.log_text(call, row) or "[]", media_type="text/plain")


async def _follow(call: Call, session: int) -> AsyncIterator[str]:
    path, sent = session_folder(call.store, session) / "log.json", 0
    while True:
        row = await run_in_threadpool(
            call.store.row, "SELECT status FROM session WHERE id = ?", (session,)
        )
        records = await run_in_threadpool(_records, path)
        for record in records[sent:]:
            yield f"data: {record}\n\n"
        sent = len(records)
        if row is None or row["status"] not in OPEN:
            yield "data: END_OF_LOG\n\n"
            return
        await asyncio.sleep(FOLLOW_SECONDS)


def _records(path: Path) -> list[str]:
    """Return the whole records of a log that may still grow: one a line, as JSON."""
    lines = path.read_text().splitlines() if path.is_file() else []
    stripped = (line.strip("[],\n ") for line in lines)
    return [line for line in stripped if line and _whole(line)]


def _whole(line: str) -> bool:
    try:
        json.loads(line)
    except ValueError:
        return False
    return True

"""The storage side: resumable uploads as GCS takes them, and signed downloads with ranges."""

from __future__ import annotations

import base64
import hashlib
import hmac
import os
import secrets
import time
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

from starlette.concurrency import run_in_threadpool
from starlette.requests import ClientDisconnect, Request
from starlette.responses import FileResponse, JSONResponse, Response

from kagflow import durable
from kagflow.rehearse.store import Store

# GCS keeps a broken upload up to a multiple of this.
GRANULE = 256 * 1024


@dataclass(frozen=True)
class Links:
    """Sign links to files of the store; only the server that made a link honours it."""

    base: str
    store: Store

    def upload(self, token: str) -> str:
        """Return the URL that takes an upload's bytes; the token is the secret."""
        return f"{self.base}/upload/{token}"

    def download(self, path: Path) -> str:
        """Return a link to a file under the store that expires; it ends in the file's name."""
        relative = path.relative_to(self.store.path).as_posix()
        expires = int(time.time() + self.store.settings.link_s)
        signature = sign(self.store, relative, expires)
        return f"{self.base}/storage/{quote(relative)}?expires={expires}&signature={signature}"


def sign(store: Store, relative: str, expires: int) -> str:
    """Return the hexadecimal HMAC-SHA256 of a path and its expiry under the store's token."""
    message = f"{relative}\n{expires}".encode()
    return hmac.new(store.token.encode(), message, hashlib.sha256).hexdigest()


def start_upload(store: Store, name: str, size: int) -> str:
    """Open an upload of `size` bytes and return its token."""
    token = secrets.token_urlsafe(32)
    store.execute("INSERT INTO blob (token, name, size) VALUES (?, ?, ?)", (token, name, size))
    return token


def blob_path(store: Store, token: str) -> Path:
    """Return where an upload's bytes are."""
    return store.path / "blobs" / token


async def put_upload(request: Request) -> Response:
    """Take bytes of an upload: the whole, a resumed rest, or the question how much is here."""
    store: Store = request.app.state.links.store
    token = request.path_params["token"]
    row = await run_in_threadpool(store.row, "SELECT * FROM blob WHERE token = ?", (token,))
    if row is None:
        return JSONResponse({"error": {"code": 404, "message": "no such upload"}}, 404)
    if row["done"]:
        return JSONResponse({})
    path = blob_path(store, token)
    path.parent.mkdir(exist_ok=True)
    have = path.stat().st_size if path.exists() else 0
    start = _start(request.headers.get("content-range"))
    # A kill may come between the last byte and the note of it: asked then, all is here.
    whole = start is None and path.exists() and have == row["size"]
    if not whole and (start is None or start > have):
        return _incomplete(have)
    if not whole:
        have = await _receive(request, path, start or 0)
    if have != row["size"]:
        return _incomplete(have) if have < row["size"] else _too_long(path)
    await run_in_threadpool(_finish, store, token)
    return JSONResponse({})


async def get_storage(request: Request) -> Response:
    """Serve a signed link with Range, If-Range, ETag and Content-Length; 403 when it is stale."""
    store: Store = request.app.state.links.store
    relative = request.path_params["path"]
    query = request.query_params
    expires = int(query.get("expires", "0")) if query.get("expires", "0").isdigit() else 0
    good = hmac.compare_digest(query.get("signature", ""), sign(store, relative, expires))
    if not good or expires < time.time():
        return Response("<Error><Code>ExpiredToken</Code></Error>", 403, media_type="text/xml")
    path = store.path / relative
    if not path.is_file():
        return Response("<Error><Code>NoSuchKey</Code></Error>", 404, media_type="text/xml")
    if store.settings.hash_sent:
        return FileResponse(path, headers={"x-goog-hash": await run_in_threadpool(_hash, path)})
    return FileResponse(path)


def _hash(path: Path) -> str:
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).digest()
    return f"md5={base64.b64encode(digest).decode()}"


def _start(content_range: str | None) -> int | None:
    """Return the first byte that follows, None for a question ("bytes */SIZE")."""
    if content_range is None:
        return 0
    first = content_range.removeprefix("bytes ").partition("-")[0]
    return int(first) if first.isdigit() else None


async def _receive(request: Request, path: Path, start: int) -> int:
    with path.open("r+b" if path.exists() else "wb") as file:
        file.truncate(start)
        file.seek(start)
        try:
            async for chunk in request.stream():
                file.write(chunk)
        except ClientDisconnect:
            file.truncate(file.tell() // GRANULE * GRANULE)
    return path.stat().st_size


def _finish(store: Store, token: str) -> None:
    with blob_path(store, token).open("rb+") as file:
        os.fsync(file.fileno())
    # The bytes must be found again once the row says that they are here.
    durable.fsync_dir(store.path / "blobs")
    store.execute("UPDATE blob SET done = 1 WHERE token = ?", (token,))


def _incomplete(have: int) -> Response:
    return Response(status_code=308, headers={"Range": f"bytes=0-{have - 1}"} if have else {})


def _too_long(path: Path) -> Response:
    path.unlink()
    return JSONResponse({"error": {"code": 400, "message": "more bytes than announced"}}, 400)

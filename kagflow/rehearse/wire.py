"""Kaggle's wire protocol: kagglesdk's own types in and out, dispatched by what kagglesdk calls."""

from __future__ import annotations

import base64
import functools
import inspect
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import Enum
from typing import Any, TypeVar

from kagglesdk import KaggleClient
from kagglesdk.kaggle_object import KaggleObject
from starlette.responses import HTMLResponse, JSONResponse, Response

from kagflow.rehearse.blobs import Links
from kagflow.rehearse.runner import Runner
from kagflow.rehearse.store import Store

Made = TypeVar("Made")
# Kaggle's page size where a request names none, and the most it gives.
PAGE_SIZE, PAGE_LIMIT = 20, 500
# The account that a bare token speaks for, and its fixed key: only this user's processes on this
# machine get as far as being asked for one.
USER = "local"


class WireError(Exception):
    """Carry an HTTP status and the text that Kaggle's error body holds."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.message = message


@dataclass(frozen=True)
class Rpc:
    """Name the types of one remote call."""

    request: type[Any]
    response: Any


@dataclass(frozen=True)
class Call:
    """Hold what a handler may use: the state, the runner, signed links and who asks."""

    store: Store
    runner: Runner
    links: Links
    user: str


Handler = Callable[[Call, Any], KaggleObject | Response]


class _Recorder:
    """Stand where the SDK's HTTP client stands, and note what each method would send."""

    def __init__(self) -> None:
        self.calls: dict[str, Rpc] = {}

    def call(self, service: str, method: str, request: Any, response: Any) -> None:
        self.calls[f"{service}/{method}"] = Rpc(type(request), response)


@functools.cache
def rpcs() -> Mapping[str, Rpc]:
    """Return every remote call of the installed kagglesdk: "Service/Method" -> its types."""
    recorder = _Recorder()
    groups: list[Any] = [
        group
        for name, group in inspect.getmembers(KaggleClient, inspect.isclass)
        if not name.startswith("_")
    ]
    for group in groups:
        for client in vars(group(recorder)).values():
            for name, method in inspect.getmembers(client, inspect.ismethod):
                if not name.startswith("_"):
                    method()
    return recorder.calls


def make(kind: type[Made], **values: Any) -> Made:
    """Build an SDK object; None leaves a field at its default; its setters check the types."""
    instance = kind()
    for name, value in values.items():
        if value is not None:
            setattr(instance, name, value)
    return instance


def encode(value: Any) -> Any:
    """Turn an SDK object into JSON values: camelCase names, enum names, ISO times in UTC.

    The SDK's own encoder drops the days of a duration and garbles fractions of a second.
    """
    if isinstance(value, KaggleObject):
        fields = value._fields
        pairs = ((field.json_name, getattr(value, field.private_field_name)) for field in fields)
        return {name: encode(item) for name, item in pairs if item is not None}
    if isinstance(value, timedelta):
        return f"{value.total_seconds():.3f}".rstrip("0").rstrip(".") + "s"
    if isinstance(value, datetime):
        moment = value.astimezone(UTC).replace(tzinfo=None) if value.tzinfo else value
        return moment.isoformat(timespec="milliseconds") + "Z"
    if isinstance(value, Enum):
        return value.name
    if isinstance(value, list | tuple):
        return [encode(item) for item in value]
    if isinstance(value, dict):
        return {key: encode(item) for key, item in value.items()}
    return value


def decode(kind: Any, body: bytes) -> Any:
    """Read a request's JSON; raise WireError 400 when it does not fit the type."""
    try:
        values = json.loads(body or b"{}")
        if not isinstance(values, dict):
            raise WireError(400, "malformed request: not an object")
        return kind.from_dict(values)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise WireError(400, f"malformed request: {error}") from None


def page(items: list[Any], request: Any) -> tuple[list[Any], str | None]:
    """Cut one page out of a list and return it with the next page's token, None at the end."""
    size = min(max(int(request.page_size or PAGE_SIZE), 1), PAGE_LIMIT)
    try:
        start = max(int(request.page_token or 0), 0)
    except ValueError:
        raise WireError(400, f"invalid page token '{request.page_token}'") from None
    number = getattr(request, "page", None)
    if number and number > 1 and not request.page_token:
        start = (number - 1) * size
    following = str(start + size) if start + size < len(items) else None
    return items[start : start + size], following


def error_response(status: int, message: str, shape: str = "nested") -> Response:
    """Answer an error: nested under "error" as the live service does, flat, or as a web page."""
    names = {
        400: "INVALID_ARGUMENT",
        401: "UNAUTHENTICATED",
        403: "PERMISSION_DENIED",
        404: "NOT_FOUND",
        429: "RESOURCE_EXHAUSTED",
        501: "UNIMPLEMENTED",
        503: "UNAVAILABLE",
    }
    body = {"code": status, "message": message, "status": names.get(status, "INTERNAL")}
    if shape == "html":
        return HTMLResponse(f"<html><body><h1>{status}</h1><p>{message}</p></body></html>", status)
    return JSONResponse(body if shape == "flat" else {"error": body}, status_code=status)


def user_of(authorization: str | None, token: str) -> str | None:
    """Return who a Basic or Bearer header speaks for, None when its secret is wrong.

    Basic takes any user name; its key is the store's token or the fixed "local".
    """
    scheme, _, credential = (authorization or "").partition(" ")
    if scheme == "Bearer":
        return USER if credential == token else None
    if scheme != "Basic":
        return None
    try:
        user, _, key = base64.b64decode(credential).decode().partition(":")
    except ValueError:
        return None
    return user if user and key in (token, USER) else None


def moment(text: str) -> datetime:
    """Return a stored time as the naive UTC datetime that the SDK's types hold."""
    value = datetime.fromisoformat(text)
    return value.astimezone(UTC).replace(tzinfo=None) if value.tzinfo else value

"""Turn an HTTP answer into one of kagflow's errors, reading both of Kaggle's JSON shapes."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

from kagflow.errors import AuthError, KagflowError, NetworkError, RemoteError

if TYPE_CHECKING:
    import requests

    from kagflow.ship.credentials import Credential

RETRIED = frozenset({408, 425, 429, 500, 502, 503, 504})


class MissingError(RemoteError):
    """Report a 404: the thing does not exist, or not for this account."""


class ForbiddenError(RemoteError):
    """Report a 403, which Kaggle sends for many reasons; the caller tells them apart."""


def message_of(response: requests.Response) -> str:
    """Return the server's own words: flat, nested or plain text, at most 300 characters."""
    text = response.text
    try:
        body: Any = json.loads(text)
    except ValueError:
        plain = re.sub(r"\s+", " ", re.sub(r"<[^>]*>", " ", text)).strip()
        return plain[:300] or response.reason or "no text"
    return said(body) or response.reason or "no text"


def said(body: Any) -> str:
    """Return the message of an error body: `{"message"}` or `{"error": {"message"}}`."""
    if not isinstance(body, dict):
        return str(body)[:300]
    inner = body.get("error")
    if isinstance(inner, dict):
        body = inner
    elif isinstance(inner, str):
        return inner[:300]
    return str(body.get("message") or "")[:300]


def from_response(
    response: requests.Response, what: str, *, credential: Credential
) -> KagflowError:
    """Return the error that fits a refusing answer; `what` says what was being done."""
    status = response.status_code
    text = f"{what}: Kaggle answered {status}: {credential.redact(message_of(response))}"
    if status == 401:
        return AuthError(
            f"{text} (credential: {credential.source})",
            hint="create a new token on https://www.kaggle.com/settings; the order is "
            "KAGGLE_API_TOKEN, ~/.kaggle/access_token, KAGGLE_USERNAME with KAGGLE_KEY, "
            "kaggle.json",
        )
    if status == 403:
        return ForbiddenError(text, hint="is the name right, and may this account see it?")
    if status == 404:
        return MissingError(text, hint="check the name; a private thing looks missing too")
    if status in RETRIED:
        return NetworkError(text, hint="run the same command again in a while")
    return RemoteError(text)

"""Turn an HTTP answer into one of kagflow's errors, reading both of Kaggle's JSON shapes."""

from __future__ import annotations

import email.utils
import json
import re
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from kagflow.errors import AuthError, KagflowError, NetworkError, RemoteError
from kagflow.redaction import redact

if TYPE_CHECKING:
    import requests

    from kagflow.ship.credentials import Credential

RETRIED = frozenset({408, 425, 429, 500, 502, 503, 504})


class MissingError(RemoteError):
    """Report a 404: the thing does not exist, or not for this account."""


class ForbiddenError(RemoteError):
    """Report a 403, which Kaggle sends for many reasons; the caller tells them apart."""


class NoSlotError(RemoteError):
    """Report that as many sessions run as the account may have; one of them ends by itself."""


class BusyError(NetworkError):
    """Report that the server did not serve this time; `after` seconds is what it asked for."""

    def __init__(self, message: str, *, hint: str, status: int, after: float | None) -> None:
        super().__init__(message, hint=hint)
        self.status = status
        self.after = after


def message_of(response: requests.Response) -> str:
    """Return the server's own words: flat, nested or plain text, at most 300 characters."""
    text = response.text
    try:
        body: Any = json.loads(text)
    except ValueError:
        plain = re.sub(r"\s+", " ", re.sub(r"<[^>]*>", " ", text)).strip()
        return redact(plain)[:300] or response.reason or "no text"
    return said(body) or response.reason or "no text"


def retry_after(response: requests.Response) -> float | None:
    """Return the seconds that a Retry-After header asks for (number or HTTP date).

    A date is read against the server's own clock where it sends one.
    """
    text = response.headers.get("Retry-After", "").strip()
    if text.isascii() and text.isdigit():
        return float(text)
    at = _date(text)
    if at is None:
        return None
    now = _date(response.headers.get("Date", "")) or datetime.now(UTC)
    return max(0.0, (at - now).total_seconds())


def _date(text: str) -> datetime | None:
    try:
        at = email.utils.parsedate_to_datetime(text)
    except (ValueError, TypeError, IndexError, OverflowError):
        return None
    return at if at.tzinfo else at.replace(tzinfo=UTC)


def said(body: Any) -> str:
    """Return the message of an error body: `{"message"}` or `{"error": {"message"}}`.

    Live secrets are cut out of it.
    """
    if not isinstance(body, dict):
        return redact(str(body))[:300]
    inner = body.get("error")
    if isinstance(inner, dict):
        body = inner
    elif isinstance(inner, str):
        return redact(inner)[:300]
    return redact(str(body.get("message") or ""))[:300]


def from_response(
    response: requests.Response, what: str, *, credential: Credential
) -> KagflowError:
    """Return the error that fits a refusing answer; `what` says what was being done."""
    status = response.status_code
    text = f"{what}: Kaggle answered {status}: {message_of(response)}"
    if status == 401:
        return AuthError(
            f"{text} (credential: {credential.source})",
            hint=credential.mend,
        )
    if status == 403:
        return ForbiddenError(text, hint="is the name right, and may this account see it?")
    if status == 404:
        return MissingError(text, hint="check the name; a private thing looks missing too")
    if status in RETRIED:
        after = retry_after(response)
        when = "in a while" if after is None else f"in {after:.0f} seconds"
        return BusyError(
            text, hint=f"run the same command again {when}", status=status, after=after
        )
    return RemoteError(text)

"""Carry one call to Kaggle: endpoint, credential, timeouts, retries, and the loopback wall.

`Transport` stands where kagglesdk's own HTTP client stands: its service clients name the service,
the method and the request's fields, and call `Transport.call`. Answers stay plain JSON, since the
SDK's decoder turns a missing status into the first of its enum and fails on an unknown one.
"""

from __future__ import annotations

import ipaddress
import os
import random
import time
from collections.abc import Callable, Mapping
from datetime import UTC
from email.utils import parsedate_to_datetime
from typing import Any
from urllib.parse import urljoin, urlsplit

import requests

import kagflow
from kagflow.errors import KagflowError, NetworkError, RefusedError, RemoteError
from kagflow.redaction import hide
from kagflow.ship import remote_errors
from kagflow.ship.credentials import Credential

TIMEOUT = (10, 60)  # seconds to connect, seconds between two bytes
ANSWER = 300.0  # seconds for a whole answer, which may come byte by byte
ATTEMPTS = 5
LONGEST_WAIT = 60.0  # seconds between two attempts
BUDGET = 600.0  # seconds for all attempts of one call
READS = ("Get", "List", "Download", "Introspect", "StartBlobUpload")
SIGN_IN = "open a web page to sign in to the network, then run the same command again"
REDIRECTS = frozenset({301, 302, 303, 307, 308})


class Transport:
    """Send requests to one endpoint with one credential; nothing is read from the environment."""

    def __init__(
        self,
        base: str,
        credential: Credential,
        *,
        loopback_only: bool,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self.base = base.rstrip("/")
        self.credential = credential
        self.loopback_only = loopback_only
        self.sleep = sleep
        # Seconds by which Kaggle's clock was ahead of ours at the last answer; None before one.
        self.ahead: float | None = None
        hide(credential.secret, credential.username)
        self._api = _session()
        # Signed links must never see the credential.
        self._storage = _session()
        if credential.kind == "token":
            self._api.headers["Authorization"] = f"Bearer {credential.secret}"
        else:
            self._api.auth = (credential.username or "", credential.secret)

    def call(self, service: str, method: str, request: Any, response_type: Any) -> Any:
        """Post one RPC; return its JSON object, or the link that it redirects to.

        Raises AuthError, RemoteError (its children on 403 and 404) or NetworkError. Reads are
        repeated on 429, 5xx and lost connections; writes are sent once.
        """
        url = f"{self.base}/v1/{service}/{method}"
        response = self.send(
            lambda: self._post(url, type(request).to_dict(request)),
            what=method,
            attempts=ATTEMPTS if method.startswith(READS) else 1,
        )
        if response.status_code in REDIRECTS:
            if response_type.__name__ != "HttpRedirect":
                raise NetworkError(
                    f"{method}: {site_of(self.base)} sends us elsewhere (a sign-in page of the "
                    "network?)",
                    hint=SIGN_IN,
                )
            if "Location" not in response.headers:
                raise RemoteError(f"{method}: Kaggle gave no link")
            link = urljoin(url, response.headers["Location"])
            self.check(link)
            return link
        if response.status_code >= 400:
            raise remote_errors.from_response(response, method, credential=self.credential)
        return self._json(response, method)

    def stream_log(self, path: str, params: Mapping[str, str]) -> requests.Response:
        """Open the one GET of the protocol: a kernel's log as server-sent events."""
        url = f"{self.base}/v1/{path}"
        self.check(url)
        return self._api.get(
            url, params=dict(params), timeout=TIMEOUT, stream=True, allow_redirects=False
        )

    def get(self, url: str, headers: Mapping[str, str] | None = None) -> requests.Response:
        """Open a signed link for streaming, without the credential; redirects are checked."""
        for _ in range(5):
            self.check(url)
            response = self._storage.get(
                url,
                headers=dict(headers or {}),
                timeout=TIMEOUT,
                stream=True,
                allow_redirects=False,
            )
            if response.status_code not in REDIRECTS or "Location" not in response.headers:
                return response
            response.close()
            url = urljoin(url, response.headers["Location"])
        raise NetworkError(
            f"{site_of(url)} redirects without end", hint="run the same command again"
        )

    def put(self, url: str, body: Any, headers: Mapping[str, str]) -> requests.Response:
        """Put bytes to an upload link, without the credential."""
        self.check(url)
        return self._storage.put(
            url, data=body, headers=dict(headers), timeout=TIMEOUT, allow_redirects=False
        )

    def send(
        self, once: Callable[[], requests.Response], *, what: str, attempts: int
    ) -> requests.Response:
        """Send until an answer comes that repeating would not change.

        Raises NetworkError after the last attempt, or at once where the wait would be too long.
        """
        started, waited = time.monotonic(), 0.0
        for attempt in range(1, attempts + 1):
            asked = None
            try:
                response = once()
            except requests.RequestException as error:
                failure: KagflowError = NetworkError(
                    f"{what}: no answer from {site_of(self.base)} ({type(error).__name__})",
                    hint="check the connection and run the same command again",
                )
            else:
                if response.status_code not in remote_errors.RETRIED or attempt == attempts:
                    return response
                failure = remote_errors.from_response(response, what, credential=self.credential)
                asked = remote_errors.retry_after(response)
            wait = pause(attempt) if asked is None else asked
            spent = max(waited, time.monotonic() - started)
            if attempt == attempts or spent + wait > BUDGET:
                raise failure
            waited += wait
            self.sleep(wait)
        raise NetworkError(f"{what}: not tried")

    def check(self, url: str) -> None:
        """Raise RefusedError where the local profile would leave this machine.

        Elsewhere a link must be as safe as the endpoint: never http after https.
        """
        if self.loopback_only and not is_loopback(url):
            raise RefusedError(
                f"the local profile talks to this machine only, not to {site_of(url)}",
                hint="unset KAGFLOW_LOCAL_URL, or use --profile kaggle",
            )
        if self.base.startswith("https:") and urlsplit(url).scheme != "https":
            raise RefusedError(
                f"{site_of(self.base)} gave a link without encryption, to {site_of(url)}",
                hint="is something between this machine and Kaggle? Try another network",
            )

    def _post(self, url: str, body: dict[str, Any]) -> requests.Response:
        self.check(url)
        before = time.time()
        response = _whole(
            self._api.post(url, json=body, timeout=TIMEOUT, allow_redirects=False, stream=True)
        )
        self.ahead = clock_ahead(response.headers.get("Date", ""), before)
        return response

    def _json(self, response: requests.Response, method: str) -> dict[str, Any]:
        try:
            body = response.json()
        except ValueError:
            body = None
        if not isinstance(body, dict):
            raise NetworkError(
                f"{method}: {site_of(self.base)} answered with something that is not JSON "
                "(a sign-in page of the network?)",
                hint=SIGN_IN,
            )
        # Some refusals travel as 200 with an error body.
        if isinstance(body.get("code"), int) and body["code"] >= 400:
            raise RemoteError(f"{method}: {remote_errors.said(body)}")
        return body


def is_loopback(url: str) -> bool:
    """Tell whether a URL can only reach this machine."""
    try:
        host = urlsplit(url).hostname or ""
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def pause(attempt: int) -> float:
    """Return seconds of full-jitter back-off: uniform in 0..min(60, 2^attempt)."""
    return random.uniform(0, min(LONGEST_WAIT, 2.0**attempt))  # noqa: S311  not a secret


def _whole(response: requests.Response) -> requests.Response:
    """Read the body within ANSWER seconds; raise requests.Timeout where it drips longer."""
    end, body = time.monotonic() + ANSWER, bytearray()
    with response:
        for chunk in response.iter_content(1 << 16):
            body += chunk
            if time.monotonic() > end:
                raise requests.Timeout(f"no whole answer within {ANSWER:.0f} s")
    # requests has no limit for a whole answer, and no public way to hand a body back.
    response._content = bytes(body)  # noqa: SLF001
    return response


def clock_ahead(date: str, before: float) -> float | None:
    """Return how many seconds a Date header is ahead of this clock, asked `before` and read now."""
    try:
        at = parsedate_to_datetime(date)
    except (TypeError, ValueError):
        return None
    at = at if at.tzinfo else at.replace(tzinfo=UTC)
    return at.timestamp() - (before + time.time()) / 2


def _session() -> requests.Session:
    session = requests.Session()
    # Proxies and netrc of the user's shell must not redirect or re-sign a call.
    session.trust_env = False
    session.verify = os.environ.get("REQUESTS_CA_BUNDLE") or True
    session.headers["User-Agent"] = f"kagflow/{kagflow.__version__}"
    return session


def site_of(url: str) -> str:
    """Name a URL's scheme and host, without a credential or a signature."""
    try:
        parts = urlsplit(url)
    except ValueError:
        return "something that is no address"
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}"

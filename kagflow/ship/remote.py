"""Speak with Kaggle, real or embedded: the one door, the same code for both."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

from kagflow.errors import AuthError, LocalError, RefusedError
from kagflow.ship import credentials
from kagflow.ship.credentials import Credential
from kagflow.ship.remote_competitions import CompetitionCalls
from kagflow.ship.remote_datasets import DatasetCalls
from kagflow.ship.remote_kernels import KernelCalls
from kagflow.ship.remote_transport import Transport, is_loopback, site_of
from kagflow.ship.remote_types import words

LOCAL_URL = "KAGFLOW_LOCAL_URL"


class Remote(CompetitionCalls, DatasetCalls, KernelCalls):
    """Call Kaggle under one profile with one credential.

    `url` (or KAGFLOW_LOCAL_URL) says where the local profile's server is, with its key where it
    asks for one: `http://local:KEY@127.0.0.1:PORT`. `state` is this profile's own folder for
    half-done uploads. Nothing is sent before the first call.
    """

    def __init__(
        self,
        profile: str,
        *,
        url: str | None = None,
        state: Path,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self.profile = profile
        local = profile == "local"
        base, self.credential = _local(url) if local else (_site(), credentials.choose())
        transport = Transport(base, self.credential, loopback_only=local, sleep=sleep)
        super().__init__(transport, state)
        self._account = self.credential.username

    @property
    def source(self) -> str:
        """Name where the answers come from: the endpoint without its credential."""
        return self.transport.base

    def account(self) -> str:
        """Return the user name that the credential belongs to; asks Kaggle at most once.

        Raises AuthError for a token that is not valid.
        """
        if self._account is None:
            answer = self.rpc("security", "introspect_token", {"token": self.credential.secret})
            if answer.get("active") is not True or not words(answer.get("username")):
                raise AuthError(
                    f"Kaggle does not accept the token from {self.credential.source}",
                    hint=self.credential.mend,
                )
            self._account = words(answer["username"])
        return self._account


def _site() -> str:
    from kagglesdk.kaggle_env import KaggleEnv, get_endpoint

    return str(get_endpoint(KaggleEnv.PROD))


def _local(url: str | None) -> tuple[str, Credential]:
    url = url or os.environ.get(LOCAL_URL)
    if not url:
        raise LocalError(
            "the local profile has no server to talk to",
            hint="kagflow local start, or set KAGFLOW_LOCAL_URL",
        )
    if not is_loopback(url):
        raise RefusedError(
            f"the local profile talks to this machine only, not to {site_of(url)}",
            hint=f"unset {LOCAL_URL}, or use --profile kaggle",
        )
    parts = urlsplit(url)
    base = urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", ""))
    credential = credentials.LOCAL
    if parts.password:
        credential = Credential("key", parts.password, "the local server", parts.username)
    return base.rstrip("/").removesuffix("/api") + "/api", credential

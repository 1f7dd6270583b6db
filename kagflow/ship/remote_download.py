"""Bring one file here: streamed, resumed only onto bytes of the same version, size-checked."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import requests

from kagflow import durable
from kagflow.errors import DataError, NetworkError, RemoteError
from kagflow.progress import QUIET, Progress
from kagflow.ship import remote_errors
from kagflow.ship.remote_transport import ATTEMPTS, Transport, pause
from kagflow.ship.remote_types import Downloaded

CHUNK = 1 << 16  # what a broken connection loses at most
CONTENT_RANGE = re.compile(r"bytes (\d+)-(\d+)/(\d+)")
# A signed link that has expired answers with one of these; a new one is asked for.
EXPIRED = frozenset({400, 401, 403, 404, 410})


class _StaleError(Exception):
    """The bytes on disk belong to another version, or the answer is not the asked range."""


@dataclass(frozen=True)
class _Version:
    size: int | None
    validator: str  # strong ETag or Last-Modified; "" means that nothing can be resumed
    md5: str = ""


@dataclass
class Download:
    """Fetch what `link()` points to into `target`; `link` is asked anew for every attempt."""

    transport: Transport
    link: Callable[[], str]
    target: Path
    progress: Progress = QUIET
    on_size: Callable[[int], None] | None = None
    label: str = "download"
    _failure: str = field(default="", init=False)

    @property
    def part(self) -> Path:
        """Where unfinished bytes wait."""
        return self.target.with_name(self.target.name + ".part")

    @property
    def sidecar(self) -> Path:
        """Where the version of the unfinished bytes is written down."""
        return self.target.with_name(self.target.name + ".part.json")

    def run(self) -> Downloaded:
        """Return the finished file.

        Raises NetworkError when no attempt brought all bytes, DataError when the checksum that
        the server sent does not fit twice, RemoteError when the link is refused.
        """
        self.target.parent.mkdir(parents=True, exist_ok=True)
        mismatches = 0
        for attempt in range(1, ATTEMPTS + 1):
            if attempt > 1:
                self.transport.sleep(pause(attempt))
            version = self._attempt()
            if version is None:
                continue
            if not version.md5 or version.md5 == _md5(self.part):
                return self._keep(version)
            self._drop()
            mismatches += 1
            if mismatches == 2:
                raise DataError(
                    f"{self.target.name}: the bytes do not fit the checksum that Kaggle sent",
                    hint="run the same command again; if it stays, the network alters downloads",
                )
        raise NetworkError(
            f"{self.target.name}: download broke off {ATTEMPTS} times ({self._failure})",
            hint="run the same command again: it resumes",
        )

    def _attempt(self) -> _Version | None:
        known = self._known()
        offset = self.part.stat().st_size if known else 0
        headers = {"Accept-Encoding": "identity"}
        if known and offset:
            headers |= {"Range": f"bytes={offset}-", "If-Range": known.validator}
        try:
            response = self.transport.get(self.link(), headers)
            with response:
                return self._take(response, known, offset)
        except _StaleError:
            self._drop()
            self._failure = "the file changed on the server"
        except requests.RequestException as error:
            self._failure = type(error).__name__
        return None

    def _take(
        self, response: requests.Response, known: _Version | None, offset: int
    ) -> _Version | None:
        status = response.status_code
        if status == 206 and known:
            version, mode = _continued(response, known, offset), "ab"
        elif status == 200:
            version, mode, offset = _fresh(response), "wb", 0
            durable.write_json(self.sidecar, {"size": version.size, "validator": version.validator})
        elif status == 416 or status == 206:
            raise _StaleError
        else:
            self._refused(response)
            return None
        if version.size is not None and self.on_size:
            self.on_size(version.size)
        self._write(response, mode, offset, version.size)
        got = self.part.stat().st_size
        if version.size is not None and got != version.size:
            self._failure = f"{got} of {version.size} bytes came"
            if got > version.size:
                raise _StaleError
            return None
        return version

    def _refused(self, response: requests.Response) -> None:
        status = response.status_code
        self._failure = f"status {status}"
        if status in remote_errors.RETRIED:
            self.transport.sleep(min(remote_errors.retry_after(response) or 0.0, 60.0))
        elif status not in EXPIRED:
            raise RemoteError(f"{self.target.name}: the download link answered {status}")

    def _write(self, response: requests.Response, mode: str, offset: int, size: int | None) -> None:
        self.progress.start(self.label, None if size is None else float(size), "B")
        self.progress.advance(offset)
        try:
            with self.part.open(mode) as file:
                for chunk in response.iter_content(CHUNK):
                    file.write(chunk)
                    self.progress.advance(len(chunk))
                file.flush()
                os.fsync(file.fileno())
        finally:
            self.progress.finish()

    def _known(self) -> _Version | None:
        try:
            noted = json.loads(self.sidecar.read_text())
            size, validator = noted["size"], str(noted["validator"])
            got = self.part.stat().st_size
        except (OSError, ValueError, KeyError, TypeError):
            return None
        if not validator or not isinstance(size, int) or not 0 < got < size:
            return None
        return _Version(size, validator)

    def _keep(self, version: _Version) -> Downloaded:
        self.part.replace(self.target)
        durable.fsync_dir(self.target.parent)
        self.sidecar.unlink(missing_ok=True)
        return Downloaded(self.target, self.target.stat().st_size, version.validator)

    def _drop(self) -> None:
        self.part.unlink(missing_ok=True)
        self.sidecar.unlink(missing_ok=True)


def _fresh(response: requests.Response) -> _Version:
    length = response.headers.get("Content-Length", "")
    return _Version(
        int(length) if length.isdigit() else None, _validator(response), _hash(response)
    )


def _continued(response: requests.Response, known: _Version, offset: int) -> _Version:
    match = CONTENT_RANGE.fullmatch(response.headers.get("Content-Range", "").strip())
    if not match or int(match[1]) != offset or int(match[3]) != known.size:
        raise _StaleError
    validator = _validator(response)
    if validator and validator != known.validator:
        raise _StaleError
    return _Version(known.size, known.validator, _hash(response))


def _validator(response: requests.Response) -> str:
    tag = response.headers.get("ETag", "")
    if tag and not tag.startswith("W/"):
        return tag
    return response.headers.get("Last-Modified", "")


def _hash(response: requests.Response) -> str:
    for part in response.headers.get("x-goog-hash", "").split(","):
        name, _, value = part.strip().partition("=")
        if name == "md5":
            return base64.b64decode(value).hex()
    return ""


def _md5(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()

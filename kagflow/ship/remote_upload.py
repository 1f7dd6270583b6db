"""Send one file to the link that Kaggle gives: resumable PUT, continued where it broke off."""

from __future__ import annotations

import hashlib
import json
import re
import time
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import BinaryIO

import requests

from kagflow import durable
from kagflow.errors import NetworkError, RemoteError
from kagflow.progress import QUIET, Progress
from kagflow.ship import remote_errors
from kagflow.ship.remote_rpc import Calls
from kagflow.ship.remote_transport import pause

ATTEMPTS = 8
SESSION_S = 6 * 86400.0  # Kaggle forgets an upload after a week
DONE = frozenset({200, 201})
RANGE = re.compile(r"bytes=0-(\d+)")
CHUNK = 1 << 18


class _Counted:
    """Read a file from an offset, telling the progress bar; `len` is what is left to send."""

    def __init__(self, file: BinaryIO, offset: int, size: int, progress: Progress) -> None:
        file.seek(offset)
        self._file, self._left, self._progress = file, size - offset, progress

    def __len__(self) -> int:
        return self._left

    def read(self, size: int = -1) -> bytes:
        """Return the next bytes."""
        data = self._file.read(CHUNK if size < 0 else size)
        self._progress.advance(len(data))
        return data


@dataclass(frozen=True)
class Upload:
    """Send `path` as a blob of kind DATASET."""

    calls: Calls
    path: Path
    progress: Progress = QUIET

    def run(self) -> str:
        """Return the token that names the uploaded bytes.

        Raises NetworkError when it broke off too often, RemoteError when it is refused.
        """
        size = self.path.stat().st_size
        self.progress.start(f"upload {self.path.name}", float(size), "B")
        try:
            return self._run(size)
        finally:
            self.progress.finish()

    def forget(self) -> None:
        """Drop the note of this upload: a token is good for one dataset version."""
        self._note.unlink(missing_ok=True)

    def _run(self, size: int) -> str:
        token, url, offset = self._resume(size) or (*self._begin(size), 0)
        attempt, best = 0, offset
        while attempt < ATTEMPTS:
            if offset == size > 0 or self._put(url, offset, size):
                return token
            attempt += 1
            self.calls.transport.sleep(pause(attempt))
            sent = self._sent(url, size)
            if sent is None:
                token, url = self._begin(size)
            offset = sent or 0
            if offset > best:
                attempt, best = 0, offset
        raise NetworkError(
            f"{self.path.name}: upload broke off {ATTEMPTS} times",
            hint="run the same command again",
        )

    def _begin(self, size: int) -> tuple[str, str]:
        answer = self.calls.rpc(
            "blobs",
            "start_blob_upload",
            {
                "type": "DATASET",
                "name": self.path.name,
                "contentLength": size,
                "lastModifiedEpochSeconds": int(self.path.stat().st_mtime),
            },
        )
        token, url = answer.get("token"), answer.get("createUrl")
        if not token or not url:
            raise RemoteError(f"{self.path.name}: Kaggle gave no upload link")
        durable.write_json(self._note, {"token": str(token), "url": str(url)})
        return str(token), str(url)

    def _resume(self, size: int) -> tuple[str, str, int] | None:
        """Return the upload that an earlier process left, and how many bytes of it arrived."""
        try:
            noted = json.loads(self._note.read_text())
            token, url = str(noted["token"]), str(noted["url"])
            fresh = time.time() - self._note.stat().st_mtime < SESSION_S
        except (OSError, ValueError, KeyError, TypeError):
            return None
        sent = self._sent(url, size) if fresh else None
        if sent is None:
            return None
        self.progress.advance(sent)
        return token, url, sent

    @cached_property
    def _note(self) -> Path:
        # By content, server and account: bytes never go on under another file or elsewhere.
        transport = self.calls.transport
        whose = (transport.base, transport.credential.username or "", self.path.name)
        key = "\n".join([*whose, durable.sha256_file(self.path)])
        return self.calls.state / "uploads" / f"{hashlib.sha256(key.encode()).hexdigest()}.json"

    def _put(self, url: str, offset: int, size: int) -> bool:
        headers = {"Content-Type": "application/octet-stream"}
        if offset:
            headers["Content-Range"] = f"bytes {offset}-{size - 1}/{size}"
        try:
            with self.path.open("rb") as file:
                body = _Counted(file, offset, size, self.progress) if size else b""
                response = self.calls.transport.put(url, body, headers)
        except requests.RequestException:
            return False
        return self._settled(response)

    def _settled(self, response: requests.Response) -> bool:
        status = response.status_code
        if status in DONE:
            return True
        if status in remote_errors.RETRIED:
            self.calls.transport.sleep(min(remote_errors.retry_after(response) or 0.0, 60.0))
            return False
        # A link that has expired answers with one of these; a new one is asked for.
        if status in {308, 401, 403, 404, 410}:
            return False
        raise RemoteError(
            f"{self.path.name}: upload answered {status}: {remote_errors.message_of(response)}"
        )

    def _sent(self, url: str, size: int) -> int | None:
        """Return the bytes that arrived, None where the upload must begin anew."""
        try:
            response = self.calls.transport.put(
                url, b"", {"Content-Range": f"bytes */{size}", "Content-Length": "0"}
            )
        except requests.RequestException:
            return None
        if response.status_code in DONE:
            return size
        if response.status_code == 308:
            match = RANGE.fullmatch(response.headers.get("Range", "").strip())
            return min(int(match[1]) + 1, size) if match else 0
        return None

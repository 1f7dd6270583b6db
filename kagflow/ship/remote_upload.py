"""Send one file to the link that Kaggle gives: resumable PUT, continued where it broke off."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import requests

from kagflow.errors import NetworkError, RemoteError
from kagflow.progress import QUIET, Progress
from kagflow.ship import remote_errors
from kagflow.ship.remote_rpc import Calls
from kagflow.ship.remote_transport import pause, retry_after

ATTEMPTS = 8
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
        token, url = self._begin(size)
        offset = 0
        try:
            for attempt in range(1, ATTEMPTS + 1):
                if self._put(url, offset, size):
                    return token
                self.calls.transport.sleep(pause(attempt))
                sent = self._sent(url, size)
                if sent is None:
                    token, url = self._begin(size)
                elif sent == size:
                    return token
                offset = sent or 0
        finally:
            self.progress.finish()
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
        return str(token), str(url)

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
            self.calls.transport.sleep(min(retry_after(response) or 0.0, 60.0))
            return False
        if status in {308, 404, 410}:
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
            return int(match[1]) + 1 if match else 0
        return None

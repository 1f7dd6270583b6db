"""Bring one file here: in several streams, resumed only onto bytes of the same version, checked."""

from __future__ import annotations

import base64
import hashlib
import re
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol
from urllib.parse import unquote, urlsplit

import requests

from kagflow.errors import DataError, NetworkError, RemoteError
from kagflow.progress import QUIET, Progress
from kagflow.ship import remote_errors, remote_parts
from kagflow.ship.remote_parts import Gap, Part, Version
from kagflow.ship.remote_transport import ATTEMPTS, LONGEST_WAIT, Transport, pause
from kagflow.ship.remote_types import Downloaded

CHUNK = 1 << 18  # what a broken connection loses at most
STREAMS = 4
TAIL = 32  # of a watched file, one part in so many is asked for first
APART = 32 << 20  # bytes for which one more stream is worth its connection
GAINED = 1 << 20  # an attempt that brought so much was not in vain
CONTENT_RANGE = re.compile(r"bytes (\d+)-(\d+)/(\d+)")
# A signed link that has expired answers with one of these; a new one is asked for.
EXPIRED = frozenset({400, 401, 403, 404, 410})


class _StaleError(Exception):
    """The bytes on disk belong to another version, or the answer is not the asked range."""


class _BrokenError(Exception):
    """No bytes, or not all, came this time."""


class Watch(Protocol):
    """Hear of bytes as they come."""

    def begin(self) -> None:
        """Forget what came before: it may be of another version."""

    def came(self, part: Part, gap: Gap) -> None:
        """Take note of bytes up to `gap.at`, in the thread of the stream that brought them."""


@dataclass
class Download:
    """Fetch what `link()` points to into `target`; `link` is asked anew for every attempt.

    With `mark`, a file that is whole already and of the server's version is not fetched again.
    With `watch`, a file in several streams has one more for its end, where an archive's listing is.
    """

    transport: Transport
    link: Callable[[], str]
    target: Path
    progress: Progress = QUIET
    on_size: Callable[[int], None] | None = None
    label: str = "download"
    mark: bool = False
    watch: Watch | None = None
    _failure: str = field(default="", init=False)
    _url: str = field(default="", init=False)
    _steady: bool = field(default=True, init=False)
    _stop: threading.Event = field(default_factory=threading.Event, init=False)

    def run(self) -> Downloaded:
        """Return the finished file.

        Raises NetworkError when no attempt brought all bytes, DataError when the checksum that
        the server sent does not fit twice, RemoteError when the link is refused.
        """
        self.target.parent.mkdir(parents=True, exist_ok=True)
        mismatches = vain = 0
        while vain < ATTEMPTS:
            if vain:
                self.transport.sleep(pause(vain + 1))
            version, gained = self._attempt()
            vain = 0 if gained >= GAINED and self._steady else vain + 1
            if version is None:
                continue
            if _fits(self.target, version):
                size = self.target.stat().st_size
                return Downloaded(self.target, size, version.validator, self._served())
            remote_parts.forget(self.target)
            mismatches += 1
            if mismatches == 2:
                raise DataError(
                    f"{self.target.name}: the bytes do not fit the checksum that Kaggle sent",
                    hint="run the same command again; if it stays, the network alters downloads",
                )
        raise NetworkError(
            f"{self.target.name}: download broke off {vain} times ({self._failure})",
            hint="run the same command again: it resumes",
        )

    def _served(self) -> str:
        return unquote(urlsplit(self._url).path.rpartition("/")[2])

    def _attempt(self) -> tuple[Version | None, int]:
        """Return the version, None where it is not whole yet, and how many bytes came."""
        self._url, self._stop = self.link(), threading.Event()
        part, response = self._left(), None
        try:
            if part is None:
                response = self.transport.get(self._url, {"Accept-Encoding": "identity"})
                version = self._whole(response)
                if self.mark and version.same(remote_parts.finished(self.target)):
                    return version, 0
                part = self._begin(response, version)
            return self._take(part, response)
        except _StaleError:
            # Whoever answers so once may do it for ever: attempts are counted from now on.
            self._steady = False
            Part.drop(self.target)
            self._failure = "the file changed on the server, or it takes no ranges"
        except _BrokenError as error:
            self._failure = str(error) or self._failure
        except requests.RequestException as error:
            self._failure = type(error).__name__
        finally:
            if response is not None:
                response.close()
        return None, part.gained if part else 0

    def _begin(self, response: requests.Response, version: Version) -> Part:
        tail = (version.size or 0) // TAIL if self.watch else 0
        if self.watch:
            self.watch.begin()
        return Part.begin(self.target, version, self._streams(response, version), tail=tail)

    def _left(self) -> Part | None:
        """Return what can be continued; what is whole waits for the server to know its version."""
        part = Part.find(self.target)
        if part is None or not part.done:
            return part
        part.close()
        if self.mark:
            part.keep(mark=True)
        else:
            Part.drop(self.target)
        return None

    def _streams(self, response: requests.Response, version: Version) -> int:
        ranges = response.headers.get("Accept-Ranges", "").strip().lower() == "bytes"
        if not (ranges and version.resumable and self._steady):
            return 1
        return max(1, min(STREAMS, (version.size or 0) // APART))

    def _take(self, part: Part, response: requests.Response | None) -> tuple[Version | None, int]:
        size = part.version.size
        if size is not None and self.on_size:
            self.on_size(size)
        self.progress.start(self.label, None if size is None else float(size), "B")
        self.progress.advance((size or 0) - part.missing)
        try:
            self._fill(part, response)
        finally:
            self.progress.finish()
            part.close()
        part.keep(mark=self.mark)
        return part.version, part.gained

    def _fill(self, part: Part, response: requests.Response | None) -> None:
        """Close every gap, each in a stream of its own; the first may have its answer already."""
        gaps = [gap for gap in part.gaps if not gap.closed]
        answers = [response if gap is part.gaps[0] else None for gap in gaps]
        if len(gaps) < 2:
            for gap, answer in zip(gaps, answers, strict=True):
                self._stream(part, gap, answer)
            return
        with ThreadPoolExecutor(len(gaps)) as pool:
            try:
                jobs = [
                    pool.submit(self._stream, part, *one)
                    for one in reversed([*zip(gaps, answers, strict=True)])
                ]
                wait(jobs)
            except BaseException:
                self._stop.set()
                raise
        failures = [failure for job in jobs if (failure := job.exception())]
        for failure in sorted(failures, key=_is_passing):
            raise failure

    def _stream(self, part: Part, gap: Gap, response: requests.Response | None) -> None:
        try:
            with response or self._ranged(part, gap) as answer:
                for chunk in answer.iter_content(CHUNK):
                    self._check_stop()
                    wanted = chunk if gap.end is None else chunk[: gap.end - gap.at]
                    part.write(gap, wanted)
                    self.progress.advance(len(wanted))
                    if self.watch and part.version.resumable:
                        self.watch.came(part, gap)
                    if gap.closed:
                        break
        except BaseException as failure:
            # The other streams go on where only this one lost its connection.
            if not _is_passing(failure):
                self._stop.set()
            raise
        if gap.end is None:
            gap.end = gap.at
        if not gap.closed:
            raise _BrokenError(f"{part.missing} of {part.version.size} bytes did not come")

    def _check_stop(self) -> None:
        if self._stop.is_set():
            raise _BrokenError

    def _whole(self, response: requests.Response) -> Version:
        if response.status_code in (206, 416):
            raise _StaleError
        if response.status_code != 200:
            raise self._refused(response)
        length = response.headers.get("Content-Length", "")
        return _version(response, int(length) if length.isdigit() else None)

    def _ranged(self, part: Part, gap: Gap) -> requests.Response:
        version = part.version
        # Up to the end of the file is asked for openly, as every server understands it.
        last = "" if gap.end is None or gap.end == version.size else gap.end - 1
        headers = {
            "Accept-Encoding": "identity",
            "Range": f"bytes={gap.at}-{last}",
            "If-Range": version.validator,
        }
        response = self.transport.get(self._url, headers)
        try:
            self._check_answer(response, version, gap)
        except BaseException:
            response.close()
            raise
        return response

    def _check_answer(self, response: requests.Response, version: Version, gap: Gap) -> None:
        if response.status_code in (200, 416):
            raise _StaleError
        if response.status_code != 206:
            raise self._refused(response)
        match = CONTENT_RANGE.fullmatch(response.headers.get("Content-Range", "").strip())
        if not match:
            raise _StaleError
        first, last, size = (int(group) for group in match.groups())
        end = version.size if gap.end is None else gap.end
        if (first, last + 1, size) != (gap.at, end, version.size):
            raise _StaleError
        if _validator(response) not in ("", version.validator):
            raise _StaleError

    def _refused(self, response: requests.Response) -> Exception:
        status = response.status_code
        if status in remote_errors.RETRIED:
            self.transport.sleep(min(remote_errors.retry_after(response) or 0.0, LONGEST_WAIT))
        elif status not in EXPIRED:
            return RemoteError(f"{self.target.name}: the download link answered {status}")
        return _BrokenError(f"status {status}")


def _is_passing(failure: BaseException) -> bool:
    return isinstance(failure, _BrokenError | requests.RequestException)


def _version(response: requests.Response, size: int | None) -> Version:
    sent = dict(
        part.strip().partition("=")[::2]
        for part in response.headers.get("x-goog-hash", "").split(",")
    )
    return Version(size, _validator(response), sent.get("md5", ""), sent.get("crc32c", ""))


def _validator(response: requests.Response) -> str:
    tag = response.headers.get("ETag", "")
    if tag and not tag.startswith("W/"):
        return tag
    return response.headers.get("Last-Modified", "")


def _fits(path: Path, version: Version) -> bool:
    """Compare with the hash that storage sent; without one, an archive's own checks must do."""
    if version.md5:
        with path.open("rb") as file:
            md5 = hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).digest()
        return base64.b64encode(md5).decode() == version.md5
    if version.crc32c:
        # Imported here: storage has an MD5 of all but the files that were put together from parts.
        from kagflow.ship.crc32c import crc32c_file

        return base64.b64encode(crc32c_file(path).to_bytes(4, "big")).decode() == version.crc32c
    return True

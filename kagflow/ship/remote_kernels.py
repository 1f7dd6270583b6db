"""Push a kernel version, follow it, and bring its outputs back."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Iterator
from pathlib import Path, PurePosixPath
from typing import Any

import requests

from kagflow.errors import DataError, RemoteError
from kagflow.progress import QUIET, Progress
from kagflow.ship import notebook
from kagflow.ship.remote_download import Download
from kagflow.ship.remote_errors import ForbiddenError, MissingError, NoSlotError, said
from kagflow.ship.remote_rpc import Calls
from kagflow.ship.remote_types import (
    UNKNOWN,
    KernelPush,
    KernelStatus,
    LogLine,
    Pushed,
    Quota,
    QuotaView,
    count,
    inner,
    moment,
    rows,
    seconds,
    words,
)

END_OF_LOG = "END_OF_LOG"


class KernelCalls(Calls):
    """Group the calls about kernels and the quota that they draw on."""

    def push_kernel(self, push: KernelPush) -> Pushed:
        """Save and run a new kernel version, internet off and private.

        Raises RemoteError where Kaggle answers with an error, lists an invalid source, or names
        no version: all three come with status 200. `push.text` must be unique to this push: a
        lost answer is looked up by it.
        """
        before = self.kernel_version(push.ref)[0]
        return self.write(lambda: self._save(push), lambda: self.find_kernel(push, after=before))

    def find_kernel(self, push: KernelPush, *, after: int = 0) -> Pushed | None:
        """Return the kernel's newest version where it holds exactly this source."""
        version, source = self.kernel_version(push.ref)
        if version <= after or not notebook.same(push.text, source):
            return None
        return Pushed(push.ref, version, f"https://www.kaggle.com/code/{push.ref}")

    def find_version(
        self, ref: str, is_it: Callable[[str], bool], *, back: int = 10
    ) -> Pushed | None:
        """Return the newest of the last `back` versions whose source `is_it`."""
        newest, source = self.kernel_version(ref)
        for version in range(newest, max(0, newest - back), -1):
            if version != newest:
                source = self.kernel_version(ref, version)[1]
            if is_it(source):
                return Pushed(ref, version, f"https://www.kaggle.com/code/{ref}")
        return None

    def kernel_version(self, ref: str, version: int | None = None) -> tuple[int, str]:
        """Return a version's number and source, the newest's; (0, "") where there is none."""
        label = {"versionLabel": f"v{version}"} if version else {}
        try:
            answer = self.rpc("kernels", "get_kernel", {**_named(ref), **label})
        except (MissingError, ForbiddenError):
            return 0, ""
        source = inner(answer, "blob").get("source")
        number = count(inner(answer, "metadata").get("currentVersionNumber"))
        return number, source if isinstance(source, str) else ""

    def kernel_status(self, ref: str, version: int) -> KernelStatus:
        """Return the state of exactly this version; one that is not visible yet is UNKNOWN."""
        fields = {**_named(ref), "versionLabel": f"v{version}"}
        try:
            answer = self.rpc("kernels", "get_kernel_session_status", fields)
        except MissingError:
            return KernelStatus(UNKNOWN, "")
        return KernelStatus(
            words(answer.get("status")) or UNKNOWN, words(answer.get("failureMessage"))
        )

    def kernel_log(self, ref: str, version: int) -> tuple[LogLine, ...]:
        """Return what the version has printed so far, as far as Kaggle tells while it runs."""
        return _log(str(self._output_pages(ref, version)[1]))

    def kernel_stream(self, ref: str, version: int) -> Iterator[LogLine]:
        """Yield what the version prints from its start, while it runs; end when it ends.

        Silence longer than the read timeout, or a lost connection, ends it as well: ask the status.
        """
        path = f"kernels/logs/stream/{ref}"
        try:
            with self.transport.stream_log(path, {"versionLabel": f"v{version}"}) as response:
                if response.status_code != 200:
                    return
                if "event-stream" not in response.headers.get("Content-Type", ""):
                    yield from _log(response.text)
                    return
                for line in response.iter_lines(decode_unicode=True):
                    data = str(line).removeprefix("data:").strip()
                    if data == END_OF_LOG:
                        return
                    yield from _log(f"[{data}]" if data else "")
        except requests.RequestException:
            return

    def kernel_outputs(
        self, ref: str, version: int, dest: Path, *, progress: Progress = QUIET
    ) -> tuple[Path, ...]:
        """Download every output file of the version under `dest` and return their paths.

        Raises DataError for a file name that would leave `dest`.
        """
        found, _ = self._output_pages(ref, version)
        paths = []
        for name, url in found:
            path = dest / _safe(name)
            Download(self.transport, lambda url=url: url, path, progress, label=name).run()  # type: ignore[misc]
            paths.append(path)
        return tuple(paths)

    def quota(self) -> QuotaView:
        """Return the week's accelerator quotas; None for one that Kaggle does not tell."""
        answer = self.rpc("kernels", "get_accelerator_quota_statistics")
        return QuotaView(
            _quota(answer.get("gpuQuota")),
            _quota(answer.get("tpuQuota")),
            moment(answer.get("quotaRefreshTime")),
            self.transport.ahead or 0.0,
        )

    def _save(self, push: KernelPush) -> Pushed:
        answer = self.rpc("kernels", "save_kernel", save_fields(push))
        invalid = {
            key: answer[key]
            for key in sorted(answer)
            if key.startswith("invalid") and key != "invalidTags" and answer[key]
        }
        if answer.get("error"):
            raise _refusal(push.ref, said(answer))
        if invalid:
            raise RemoteError(
                f"kernel {push.ref} was started without some of its inputs: {invalid}",
                hint="stop it on its page; nothing can stop it from here",
            )
        version = count(answer.get("versionNumber"))
        if version <= 0:
            raise RemoteError(f"kernel {push.ref}: the push was answered without a version")
        return Pushed(_ref(answer, push.ref), version, words(answer.get("url")))

    def _output_pages(self, ref: str, version: int) -> tuple[list[tuple[str, str]], str]:
        files: list[tuple[str, str]] = []
        log = ""
        fields = {**_named(ref), "versionLabel": f"v{version}"}
        with contextlib.suppress(MissingError):
            for answer in self.answers("kernels", "list_kernel_session_output", fields):
                log = words(answer.get("log")) or log
                files += [
                    (words(item.get("fileName")), str(item.get("url") or ""))
                    for item in rows(answer, "files")
                ]
        return files, log


def save_fields(push: KernelPush) -> dict[str, Any]:
    """Return the SaveKernel request; what Kaggle would default to is always written out."""
    return {
        "slug": push.ref,
        "newTitle": push.title,
        "text": push.text,
        "language": push.language,
        "kernelType": push.kernel_type,
        "isPrivate": True,
        "enableInternet": False,
        "machineShape": push.machine_shape,
        **_pinned(push.docker_image),
        "datasetDataSources": list(push.datasets),
        "competitionDataSources": [push.competition] if push.competition else [],
        "kernelDataSources": list(push.kernels),
        "modelDataSources": [],
        "sessionTimeoutSeconds": push.timeout_s,
    }


def _pinned(image: str) -> dict[str, str]:
    # Unpinned, a new kernel runs in the latest image, whatever the pack was proved for.
    return {"dockerImage": image, "dockerImagePinningType": "original"} if image else {}


def _named(ref: str) -> dict[str, str]:
    owner, _, slug = ref.partition("/")
    return {"userName": owner, "kernelSlug": slug}


def _refusal(ref: str, text: str) -> RemoteError:
    """Return the error for Kaggle's own words of refusal (texts seen in the field)."""
    message = f"kernel {ref} refused: {text}"
    if "session count" in text.lower():
        hint = "wait until a running kernel ends, then run the same command again"
        return NoSlotError(message, hint=hint)
    quota = "quota" in text.lower()
    hint = "kagflow quota says when the hours renew; then run the same command again"
    return RemoteError(message, hint=hint if quota else "")


def _ref(answer: dict[str, Any], asked: str) -> str:
    # The server slugs from the title, so the answer and not the request says where it went.
    parts = [part for part in words(answer.get("ref")).split("/") if part]
    return "/".join(parts[-2:]) if len(parts) >= 2 else asked


def _log(text: str) -> tuple[LogLine, ...]:
    try:
        items = json.loads(text) if text.strip() else []
    except (ValueError, RecursionError):
        items = None
    if not isinstance(items, list):
        return tuple(LogLine(0.0, "stdout", words(line)) for line in text.splitlines())
    return tuple(
        LogLine(seconds(item.get("time")), words(item.get("stream_name")), words(item.get("data")))
        for item in items
        if isinstance(item, dict)
    )


def _quota(item: Any) -> Quota | None:
    if not isinstance(item, dict) or "totalTimeAllowed" not in item:
        return None
    return Quota(
        seconds(item.get("timeUsed")),
        seconds(item.get("timeReserved")),
        seconds(item["totalTimeAllowed"]),
        seconds(item.get("minimumTimeAllowed")),
    )


def _safe(name: str) -> Path:
    path = PurePosixPath(name)
    if not name or path.is_absolute() or ".." in path.parts or "\\" in name:
        raise DataError(f"kernel output with the unsafe name '{name}'")
    return Path(*path.parts)

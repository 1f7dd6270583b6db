"""Make a folder of files a private dataset version on Kaggle, once."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from kagflow.errors import DataError, NetworkError, RemoteError, UsageError
from kagflow.progress import QUIET, Progress
from kagflow.ship.remote_errors import ForbiddenError, MissingError, said
from kagflow.ship.remote_rpc import Calls
from kagflow.ship.remote_types import (
    DEAD,
    UNKNOWN,
    DatasetInfo,
    DatasetVersion,
    RemoteFile,
    count,
    rows,
    size_of,
    words,
)
from kagflow.ship.remote_upload import Upload

LICENSE = "CC0-1.0"
BUSY = frozenset(
    {
        "NOT_YET_PERSISTED",
        "BLOBS_RECEIVED",
        "BLOBS_DECOMPRESSED",
        "BLOBS_COPIED_TO_SDS",
        "INDIVIDUAL_BLOBS_COMPRESSED",
        "REPROCESSING",
    }
)


@dataclass(frozen=True)
class DatasetPush:
    """Say what a dataset version is; `mark` is found again in its notes or description."""

    ref: str
    title: str
    folder: Path
    mark: str


class DatasetCalls(Calls):
    """Group the calls about datasets."""

    def dataset(self, ref: str) -> DatasetInfo | None:
        """Return a dataset of ours and its versions, None where there is none.

        Kaggle answers 403 as well as 404 for what does not exist.
        """
        try:
            answer = self.rpc("datasets", "get_dataset", _named(ref))
        except (MissingError, ForbiddenError):
            return None
        return DatasetInfo(
            ref=ref,
            description=words(answer.get("description")),
            current=count(answer.get("currentVersionNumber")),
            versions=tuple(
                DatasetVersion(
                    count(item.get("versionNumber")),
                    words(item.get("versionNotes")),
                    words(item.get("status")) or UNKNOWN,
                )
                for item in rows(answer, "versions")
            ),
        )

    def dataset_files(self, ref: str, version: int) -> tuple[RemoteFile, ...]:
        """Return the files of one version, all pages."""
        fields = {**_named(ref), "datasetVersionNumber": version}
        items = self.pages("datasets", "list_dataset_files", fields, "datasetFiles")
        return tuple(RemoteFile(words(item.get("name")), size_of(item)) for item in items)

    def dataset_status(self, ref: str) -> str:
        """Return the newest version's state as sent; UNKNOWN where none came."""
        try:
            answer = self.rpc("datasets", "get_dataset_status", _named(ref))
        except (MissingError, ForbiddenError):
            # Both come while Kaggle still works on a new dataset.
            return UNKNOWN
        return words(answer.get("status")) or UNKNOWN

    def dataset_create_or_version(self, push: DatasetPush, *, progress: Progress = QUIET) -> int:
        """Upload a flat folder as a new version and return its number.

        Nothing is sent where a version already carries the mark. Raises RemoteError where Kaggle
        refuses, UsageError for a folder that is not flat.
        """
        known = self.dataset(push.ref)
        there = known.version_with(push.mark) if known else None
        uploads = [Upload(self, file, progress) for file in flat_files(push.folder)]
        if there is None:
            there = self._send(push, uploads, known.current if known else 0)
        for upload in uploads:
            upload.forget()
        return there

    def dataset_wait(
        self, push: DatasetPush, version: int, *, progress: Progress = QUIET, limit_s: float = 3600
    ) -> None:
        """Wait until `version` is live and lists the folder's files with their sizes.

        Raises RemoteError where Kaggle failed to process it or changed it, NetworkError where it
        takes too long: the same command then waits on.
        """
        progress.start(f"wait for dataset {push.ref}")
        try:
            self._until(lambda: self._live(push.ref, version), f"dataset {push.ref}", limit_s)
        finally:
            progress.finish()
        self._compare(push, version)

    def _send(self, push: DatasetPush, uploads: list[Upload], before: int) -> int:
        tokens = [{"token": upload.run()} for upload in uploads]
        if before:
            self._rest(push.ref, lambda state: state not in BUSY)
        try:
            self._make_once(push, tokens, before)
        except ForbiddenError as error:
            # Kaggle denies a new version while it still works on the one before.
            if not before or self.dataset_status(push.ref) in {"READY", *DEAD}:
                raise RemoteError(
                    f"dataset {push.ref}: Kaggle lets this account not write it ({error.message})",
                    hint="does it belong to another account? The credential is from "
                    f"{self.transport.credential.source}",
                ) from None
            self._rest(push.ref, lambda state: state in {"READY", *DEAD})
            self._make_once(push, tokens, before)
        # An accepted version may not be listed yet; `dataset_wait` waits for its number.
        return self._look_up(push, before) or before + 1

    def _make_once(self, push: DatasetPush, tokens: list[dict[str, str]], before: int) -> None:
        self.write(lambda: self._make(push, tokens, before), lambda: self._look_up(push, before))

    def _rest(self, ref: str, rests: Callable[[str], bool], limit_s: float = 3600) -> None:
        """Wait until what Kaggle does to the newest version has come to rest."""
        self._until(lambda: rests(self.dataset_status(ref)), f"dataset {ref}", limit_s)

    def _until(self, done: Callable[[], bool], what: str, limit_s: float) -> None:
        ends, wait = time.monotonic() + limit_s, 0.2
        while not done():
            if time.monotonic() > ends:
                raise NetworkError(
                    f"{what} is not ready after {limit_s / 60:.0f} minutes",
                    hint="run the same command again: it waits on",
                )
            self.transport.sleep(wait)
            wait = min(20.0, wait * 1.5)

    def _make(self, push: DatasetPush, tokens: list[dict[str, str]], before: int) -> int:
        if before:
            body = {"versionNotes": push.mark, "files": tokens}
            fields = {"ownerSlug": push.ref.split("/")[0], "datasetSlug": push.ref.split("/")[1]}
            answer = self.rpc("datasets", "create_dataset_version", {**fields, "body": body})
        else:
            owner, _, slug = push.ref.partition("/")
            answer = self.rpc(
                "datasets",
                "create_dataset",
                {
                    "ownerSlug": owner,
                    "slug": slug,
                    "title": push.title,
                    "licenseName": LICENSE,
                    "isPrivate": True,
                    "description": push.mark,
                    "files": tokens,
                },
            )
        if answer.get("error"):
            raise RemoteError(
                f"dataset {push.ref} refused: {said(answer)}",
                hint=f"see https://www.kaggle.com/datasets/{push.ref}; one that was made a moment "
                "ago may not be visible yet: then run the same command again",
            )
        return before + 1

    def _look_up(self, push: DatasetPush, before: int) -> int | None:
        info = self.dataset(push.ref)
        if info is None or info.current <= before:
            return None
        found = info.version_with(push.mark)
        # Where versions are listed, one without the mark is somebody else's.
        return found if found or info.versions else info.current

    def _live(self, ref: str, version: int) -> bool:
        status = self.dataset_status(ref)
        if status in DEAD:
            raise RemoteError(
                f"Kaggle could not process dataset {ref}: {status}",
                hint=f"see https://www.kaggle.com/datasets/{ref}; then run the same command again",
            )
        if status != "READY":
            return False
        info = self.dataset(ref)
        return info is not None and info.current >= version

    def _compare(self, push: DatasetPush, version: int) -> None:
        there = {file.name: file.size for file in self.dataset_files(push.ref, version)}
        wrong = [
            file.name
            for file in flat_files(push.folder)
            if file.name not in there or there[file.name] not in {None, file.stat().st_size}
        ]
        if wrong:
            raise DataError(
                f"dataset {push.ref}, version {version}: {', '.join(wrong[:5])} did not arrive "
                "as it was sent",
                hint=f"see https://www.kaggle.com/datasets/{push.ref}",
            )


def flat_files(folder: Path) -> list[Path]:
    """Return a folder's files by name; raise UsageError for sub-folders and links."""
    entries = sorted(folder.iterdir())
    odd = [entry.name for entry in entries if entry.is_symlink() or not entry.is_file()]
    if odd or not entries:
        raise UsageError(f"{folder} must hold plain files only, at least one: {', '.join(odd)}")
    return entries


def _named(ref: str) -> dict[str, str]:
    owner, _, slug = ref.partition("/")
    return {"ownerSlug": owner, "datasetSlug": slug}

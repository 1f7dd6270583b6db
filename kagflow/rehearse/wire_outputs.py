"""kernels.KernelsApiService: the files and the log that a saved run left."""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from kagglesdk.kernels.types import kernels_api_service as api
from starlette.responses import RedirectResponse, Response

from kagflow.rehearse.runner import session_folder
from kagflow.rehearse.store import OPEN, files_under
from kagflow.rehearse.wire import Call, Handler, WireError, make, page
from kagflow.rehearse.wire_kernels import version_of


def outputs(call: Call, row: sqlite3.Row) -> tuple[Path, list[Path]]:
    """Return a saved run's working folder and its files; none while it runs."""
    working = session_folder(call.store, row["session"] or 0) / "working"
    done = row["status"] is not None and row["status"] not in OPEN
    return working, files_under(working) if done else []


def log_text(call: Call, row: sqlite3.Row) -> str:
    """Return a saved run's log as the text of a JSON array, "" before it ends."""
    path = session_folder(call.store, row["session"] or 0) / "log.json"
    return path.read_text() if row["status"] not in OPEN and path.is_file() else ""


def list_kernel_session_output(call: Call, request: api.ApiListKernelSessionOutputRequest) -> Any:
    """Answer links to a run's files, and its whole log."""
    row = version_of(call, request.user_name, request.kernel_slug, request.version_label)
    working, files = outputs(call, row)
    items, token = page(files, request)
    entries = [
        make(
            api.ApiKernelSessionOutputFile,
            url=call.links.download(path),
            file_name=path.relative_to(working).as_posix(),
        )
        for path in items
    ]
    return make(
        api.ApiListKernelSessionOutputResponse,
        files=entries,
        log=log_text(call, row),
        next_page_token=token,
    )


def list_kernel_files(call: Call, request: api.ApiListKernelFilesRequest) -> Any:
    """Answer names and sizes of a run's files."""
    row = version_of(call, request.user_name, request.kernel_slug, request.version_label)
    working, files = outputs(call, row)
    items, token = page(files, request)
    entries = [
        make(
            api.ApiListKernelFilesItem,
            name=path.relative_to(working).as_posix(),
            size=path.stat().st_size,
            creation_date=row["created"],
        )
        for path in items
    ]
    return make(api.ApiListKernelFilesResponse, files=entries, next_page_token=token)


def download_kernel_output(call: Call, request: api.ApiDownloadKernelOutputRequest) -> Response:
    """Redirect to one file of a run, or to a zip of all."""
    label = f"v{request.version_number}" if request.version_number else None
    row = version_of(call, request.owner_slug, request.kernel_slug, label)
    working, files = outputs(call, row)
    if not request.file_path:
        if not files:
            raise WireError(404, "this version has no output (yet)")
        archive = call.store.zipped(working, working.parent / f"{row['slug']}.zip")
        return RedirectResponse(call.links.download(archive), 302)
    path = working / request.file_path
    if path not in files:
        raise WireError(404, f"{request.file_path} is not an output of this version")
    return RedirectResponse(call.links.download(path), 302)


HANDLERS: Mapping[str, Handler] = {
    "kernels.KernelsApiService/ListKernelSessionOutput": list_kernel_session_output,
    "kernels.KernelsApiService/ListKernelFiles": list_kernel_files,
    "kernels.KernelsApiService/DownloadKernelOutput": download_kernel_output,
}

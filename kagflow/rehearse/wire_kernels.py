"""kernels.KernelsApiService: pushes, and what their runs say of themselves."""

from __future__ import annotations

import json
import re
import sqlite3
from collections.abc import Mapping
from typing import Any

from kagglesdk.kernels.types import kernels_api_service as api
from kagglesdk.kernels.types.kernels_enums import KernelExecutionType, KernelWorkerStatus

from kagflow.rehearse import datasets
from kagflow.rehearse.quota import accelerator_of, allowed_hours, quota_used
from kagflow.rehearse.runner import SAVE_HOURS, open_session
from kagflow.rehearse.settings import Settings
from kagflow.rehearse.store import OPEN, now
from kagflow.rehearse.wire import Call, Handler, WireError, encode, make, moment, page
from kagflow.rehearse.wire_competitions import SITE


def save_kernel(call: Call, request: api.ApiSaveKernelRequest) -> Any:
    """Save a version and queue its run; a refusal is an error in a 200, as on Kaggle."""
    pushed = encode(request)
    owner, _, slug = (request.slug or "").rpartition("/")
    refusal = _refusal(call, owner or call.user, pushed)
    if refusal:
        return make(api.ApiSaveKernelResponse, error=refusal)
    invalid = _invalid_sources(call, pushed)
    pushed["pinnedDatasets"] = [
        f"{version.owner}/{version.slug}/{version.number}"
        for source in pushed.get("datasetDataSources", [])
        if (version := datasets.by_source(call.store, source)) and version.ready
    ]
    pushed["pinnedKernels"] = {
        source: session
        for source in pushed.get("kernelDataSources", [])
        if (session := _newest_output(call, source)) is not None
    }
    run = request.kernel_execution_type != KernelExecutionType.QUICK_SAVE
    slug, number, session = _add_version(call, slug, pushed, run=run)
    if session is not None:
        call.runner.enqueue(session)
    return make(
        api.ApiSaveKernelResponse,
        ref=f"{call.user}/{slug}",
        url=f"{SITE}/code/{call.user}/{slug}",
        version_number=number,
        kernel_id=_kernel(call, call.user, slug)["id"],
        **invalid,
    )


def _refusal(call: Call, owner: str, pushed: Mapping[str, Any]) -> str | None:
    if owner != call.user:
        return "Notebook not found"
    if pushed.get("language", "python") != "python":
        return "This embedded Kaggle runs Python only"
    if len(slugify(str(pushed.get("newTitle") or pushed.get("slug") or ""))) < 5:
        return "The title must be at least five characters"
    accelerator = accelerator_of(dict(pushed))
    if not call.store.settings.phone_verified and accelerator != "none":
        return "You must verify your phone number to use accelerators"
    return _no_room(call, accelerator)


def _no_room(call: Call, accelerator: str) -> str | None:
    running = call.store.row(
        "SELECT COUNT(*) AS n FROM session WHERE kind = 'save' AND accelerator = ? "
        "AND status IN (?, ?)",
        (accelerator, *OPEN),
    )
    assert running is not None
    name = "CPU" if accelerator == "none" else accelerator.upper()
    slots = _slots(call.store.settings, accelerator)
    if running["n"] >= slots:
        return f"Maximum batch {name} session count of {slots} reached."
    hours = allowed_hours(call.store, accelerator)
    if hours is not None and quota_used(call.store, accelerator)[0] >= hours * 3600:
        return f"Maximum weekly {name} quota of {hours:.2f} hours reached."
    return None


def _slots(settings: Settings, accelerator: str) -> int:
    by_kind = {"gpu": settings.gpu_slots, "tpu": settings.tpu_slots}
    return by_kind.get(accelerator, settings.cpu_slots)


def _invalid_sources(call: Call, pushed: Mapping[str, Any]) -> dict[str, list[str]]:
    """Return what can't be mounted; the run starts without it, as on Kaggle."""

    def bad_dataset(source: str) -> bool:
        version = datasets.by_source(call.store, source)
        return version is None or not version.ready or version.owner != call.user

    return {
        "invalid_dataset_sources": list(filter(bad_dataset, pushed.get("datasetDataSources", []))),
        "invalid_competition_sources": [
            slug
            for slug in pushed.get("competitionDataSources", [])
            if not call.store.has_competition(slug)
        ],
        "invalid_kernel_sources": [
            source
            for source in pushed.get("kernelDataSources", [])
            if _newest_output(call, source) is None
        ],
        "invalid_model_sources": pushed.get("modelDataSources", []),
    }


def _newest_output(call: Call, source: str) -> int | None:
    """Return the run whose files a kernel source mounts: the newest that ended well."""
    owner, _, slug = source.partition("/")
    row = call.store.row(
        "SELECT s.id FROM session s JOIN kernel_version v ON v.id = s.version "
        "JOIN kernel k ON k.id = v.kernel WHERE k.owner = ? AND k.slug = ? AND k.owner = ? "
        "AND s.kind = 'save' AND s.status = 'COMPLETE' ORDER BY v.number DESC LIMIT 1",
        (owner, slug, call.user),
    )
    return None if row is None else int(row["id"])


def _add_version(
    call: Call, slug: str, pushed: dict[str, Any], *, run: bool
) -> tuple[str, int, int | None]:
    """Record a version and, unless it is only saved, its run; return (slug, number, session)."""
    title = str(pushed.get("newTitle") or slug)
    with call.store.write() as db:
        find = "SELECT id FROM kernel WHERE owner = ? AND slug = ?"
        row = db.execute(find, (call.user, slug)).fetchone()
        if row is None:
            # A new kernel is named after its title, whatever the push calls it.
            slug = slugify(title) if call.store.settings.slug_from_title else slug
            db.execute(
                "INSERT OR IGNORE INTO kernel (owner, slug, title) VALUES (?, ?, ?)",
                (call.user, slug, title),
            )
            row = db.execute(find, (call.user, slug)).fetchone()
        last = "SELECT COALESCE(MAX(number), 0) FROM kernel_version WHERE kernel = ?"
        number = 1 + int(db.execute(last, (row["id"],)).fetchone()[0])
        version = db.execute(
            "INSERT INTO kernel_version (kernel, number, request, created) VALUES (?, ?, ?, ?)",
            (row["id"], number, json.dumps(pushed), now()),
        ).lastrowid
        cap = SAVE_HOURS[accelerator_of(pushed)] * 3600
        asked = pushed
        if not call.store.settings.session_timeout_honoured:
            asked = {**pushed, "sessionTimeoutSeconds": 0}
        session = open_session(db, int(version or 0), "save", asked, cap) if run else None
    return slug, number, session


def slugify(title: str) -> str:
    """Return a title as a URL's part: lower-case letters, digits and single hyphens."""
    return re.sub(r"[^a-z0-9]+", "-", title.lower()).strip("-")


def _kernel(call: Call, owner: str, slug: str) -> sqlite3.Row:
    row = call.store.row("SELECT * FROM kernel WHERE owner = ? AND slug = ?", (owner, slug))
    if row is None or owner != call.user:
        raise WireError(403, "Permission 'kernels.get' was denied")
    return row


def version_of(call: Call, owner: str, slug: str, label: str | None) -> sqlite3.Row:
    """Return a version, the newest without a label, with its saved run's columns.

    Raises WireError 403 for an unknown kernel and 404 for an unknown version or a bare number.
    """
    kernel = _kernel(call, owner, slug)
    if label and not re.fullmatch(r"v[1-9]\d*", label):
        raise WireError(404, f"version '{label}' not found")
    number = int(label[1:]) if label else None
    row = call.store.row(
        "SELECT v.number, v.request, v.created, k.id AS kernel, k.owner, k.slug, k.title, "
        "s.id AS session, s.status, s.failure FROM kernel_version v "
        "JOIN kernel k ON k.id = v.kernel "
        "LEFT JOIN session s ON s.version = v.id AND s.kind = 'save' "
        "WHERE v.kernel = ? AND (? IS NULL OR v.number = ?) ORDER BY v.number DESC LIMIT 1",
        (kernel["id"], number, number),
    )
    if row is None:
        raise WireError(404, f"version '{label}' not found")
    return row


def _metadata(row: sqlite3.Row) -> api.ApiKernelMetadata:
    request = json.loads(row["request"])
    return make(
        api.ApiKernelMetadata,
        id=row["kernel"],
        ref=f"{row['owner']}/{row['slug']}",
        slug=row["slug"],
        title=row["title"],
        author=row["owner"],
        last_run_time=moment(row["created"]),
        language=request.get("language"),
        kernel_type=request.get("kernelType"),
        is_private=request.get("isPrivate", True),
        enable_gpu=accelerator_of(request) == "gpu",
        enable_tpu=accelerator_of(request) == "tpu",
        enable_internet=request.get("enableInternet", True),
        dataset_data_sources=request.get("datasetDataSources", []),
        competition_data_sources=request.get("competitionDataSources", []),
        kernel_data_sources=request.get("kernelDataSources", []),
        model_data_sources=request.get("modelDataSources", []),
        category_ids=request.get("categoryIds", []),
        current_version_number=row["number"],
        docker_image=request.get("dockerImage"),
        machine_shape=request.get("machineShape"),
    )


def get_kernel(call: Call, request: api.ApiGetKernelRequest) -> Any:
    """Answer a version's metadata and source."""
    row = version_of(call, request.user_name, request.kernel_slug, request.version_label)
    pushed = json.loads(row["request"])
    blob = make(
        api.ApiKernelBlob,
        source=pushed.get("text"),
        language=pushed.get("language"),
        kernel_type=pushed.get("kernelType"),
        slug=row["slug"],
    )
    return make(api.ApiGetKernelResponse, metadata=_metadata(row), blob=blob)


def list_kernels(call: Call, request: api.ApiListKernelsRequest) -> Any:
    """Answer this user's kernels whose title holds the search word, newest version each."""
    word = (request.search or "").lower()
    owned = call.store.rows("SELECT * FROM kernel WHERE owner = ? ORDER BY id DESC", (call.user,))
    chosen = [row for row in owned if word in row["title"].lower()]
    if request.user and request.user != call.user:
        chosen = []
    items, token = page(chosen, request)
    kernels = [_metadata(version_of(call, row["owner"], row["slug"], None)) for row in items]
    return make(api.ApiListKernelsResponse, kernels=kernels, next_page_token=token)


def get_kernel_session_status(call: Call, request: api.ApiGetKernelSessionStatusRequest) -> Any:
    """Answer how a version's run stands; NEW_SCRIPT is saved but never run."""
    honoured = call.store.settings.status_version_honoured
    label = request.version_label if honoured else None
    row = version_of(call, request.user_name, request.kernel_slug, label)
    return make(
        api.ApiGetKernelSessionStatusResponse,
        status=KernelWorkerStatus[row["status"] or "NEW_SCRIPT"],
        failure_message=row["failure"],
    )


HANDLERS: Mapping[str, Handler] = {
    "kernels.KernelsApiService/SaveKernel": save_kernel,
    "kernels.KernelsApiService/GetKernel": get_kernel,
    "kernels.KernelsApiService/ListKernels": list_kernels,
    "kernels.KernelsApiService/GetKernelSessionStatus": get_kernel_session_status,
}

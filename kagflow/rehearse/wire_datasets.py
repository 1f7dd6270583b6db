"""datasets.DatasetApiService and blobs.BlobApiService: uploads become numbered versions."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from kagglesdk.blobs.types import blob_api_service as blob_api
from kagglesdk.datasets.types import dataset_api_service as api
from kagglesdk.datasets.types.dataset_types import DatasetInfo, SettingsLicense
from starlette.responses import RedirectResponse, Response

from kagflow.rehearse import blobs, datasets
from kagflow.rehearse.store import files_under
from kagflow.rehearse.wire import Call, Handler, WireError, make, moment, page
from kagflow.rehearse.wire_competitions import SITE


def start_blob_upload(call: Call, request: blob_api.ApiStartBlobUploadRequest) -> Any:
    """Open a resumable upload."""
    token = blobs.start_upload(call.store, request.name, request.content_length)
    return make(
        blob_api.ApiStartBlobUploadResponse, token=token, create_url=call.links.upload(token)
    )


def create_dataset(call: Call, request: api.ApiCreateDatasetRequest) -> Any:
    """Create a dataset and its first version; a slug that is taken is an error in a 200."""
    owner, slug = request.owner_slug or call.user, request.slug or ""
    if owner != call.user:
        raise WireError(403, "Permission 'datasets.create' was denied")
    if not slug or "/" in slug or slug.startswith("."):
        raise WireError(400, f"invalid dataset slug '{slug}'")
    if _row(call, owner, slug) is not None:
        text = f'The requested title "{request.title}" is already in use by a dataset. '
        return _refused(text + "Please choose another title.")
    uploads = _uploads(call, request)
    if not uploads:
        return _refused("One or more of the uploaded files is missing or incomplete.")
    values = {
        "owner": owner,
        "slug": slug,
        "title": request.title or slug,
        "subtitle": request.subtitle,
        "description": request.description,
        "license": request.license_name,
        "private": request.is_private,
    }
    datasets.create(call.store, values, uploads)
    return _accepted(owner, slug)


def create_dataset_version(call: Call, request: api.ApiCreateDatasetVersionRequest) -> Any:
    """Add a version whose files replace all earlier ones."""
    return _new_version(call, _mine(call, request.owner_slug, request.dataset_slug), request.body)


def create_dataset_version_by_id(call: Call, request: Any) -> Any:
    """Add a version to the dataset of a number."""
    row = call.store.row("SELECT * FROM dataset WHERE id = ?", (request.id,))
    if row is None or row["owner"] != call.user:
        raise WireError(403, "Permission 'datasets.get' was denied")
    return _new_version(call, row, request.body)


def get_dataset_status(call: Call, request: api.ApiGetDatasetStatusRequest) -> Any:
    """Answer how far the newest version is; READY is what kernels can mount."""
    _mine(call, request.owner_slug, request.dataset_slug)
    version = datasets.find(call.store, request.owner_slug, request.dataset_slug)
    status = version.status if version else "NOT_YET_PERSISTED"
    return make(api.ApiGetDatasetStatusResponse, status=api.DatabundleVersionStatus[status])


def get_dataset(call: Call, request: api.ApiGetDatasetRequest) -> Any:
    """Answer a dataset with all its versions, newest first."""
    row = _mine(call, request.owner_slug, request.dataset_slug)
    versions = call.store.rows(
        "SELECT * FROM dataset_version WHERE dataset = ? ORDER BY number DESC", (row["id"],)
    )
    ready_s = call.store.settings.dataset_ready_s
    entries = [
        make(
            api.ApiDatasetVersion,
            version_number=version["number"],
            creation_date=moment(version["created"]),
            creator_name=row["owner"],
            version_notes=version["notes"],
            status=datasets.shown_status(version, ready_s),
        )
        for version in versions
    ]
    newest = versions[0]
    return make(
        api.ApiDataset,
        id=row["id"],
        ref=f"{row['owner']}/{row['slug']}",
        url=f"{SITE}/datasets/{row['owner']}/{row['slug']}",
        title=row["title"],
        subtitle=row["subtitle"],
        description=row["description"],
        license_name=row["license"],
        owner_name=row["owner"],
        owner_ref=row["owner"],
        is_private=bool(row["private"]),
        total_bytes=newest["bytes"],
        last_updated=moment(newest["created"]),
        current_version_number=newest["number"],
        versions=entries,
    )


def get_dataset_metadata(call: Call, request: api.ApiGetDatasetMetadataRequest) -> Any:
    """Answer what the client asks for before it downloads a dataset."""
    row = _mine(call, request.owner_slug, request.dataset_slug)
    info = make(
        DatasetInfo,
        dataset_id=row["id"],
        dataset_slug=row["slug"],
        owner_user=row["owner"],
        title=row["title"],
        subtitle=row["subtitle"] or "",
        description=row["description"] or "",
        is_private=bool(row["private"]),
        licenses=[make(SettingsLicense, name=row["license"])],
    )
    return make(api.ApiGetDatasetMetadataResponse, info=info)


def list_dataset_files(call: Call, request: api.ApiListDatasetFilesRequest) -> Any:
    """Answer the files of a version as kernels see them."""
    version = _ready(call, request)
    items, token = page(files_under(version.tree), request)
    files = [
        make(
            api.ApiDatasetFile,
            name=path.relative_to(version.tree).as_posix(),
            total_bytes=path.stat().st_size,
            creation_date=moment(_created(call, version)),
        )
        for path in items
    ]
    return make(api.ApiListDatasetFilesResponse, dataset_files=files, next_page_token=token)


def download_dataset(call: Call, request: api.ApiDownloadDatasetRequest) -> Response:
    """Redirect to a zip of a version, or to one of its files."""
    version = _ready(call, request)
    if not request.file_name:
        target = version.tree.parent / f"archive-{version.number}" / f"{version.slug}.zip"
        return RedirectResponse(call.links.download(call.store.zipped(version.tree, target)), 302)
    path = (version.tree / request.file_name).resolve()
    if not path.is_relative_to(version.tree) or not path.is_file():
        raise WireError(404, f"{request.file_name} is not a file of this dataset")
    return RedirectResponse(call.links.download(path), 302)


def _row(call: Call, owner: str, slug: str) -> sqlite3.Row | None:
    return call.store.row("SELECT * FROM dataset WHERE owner = ? AND slug = ?", (owner, slug))


def _mine(call: Call, owner: str, slug: str) -> sqlite3.Row:
    """Return a dataset of this user; any other is a denied permission, as on Kaggle."""
    row = _row(call, owner, slug)
    if row is None or (row["private"] and owner != call.user):
        raise WireError(403, "Permission 'datasets.get' was denied")
    return row


def _ready(call: Call, request: Any) -> datasets.Version:
    _mine(call, request.owner_slug, request.dataset_slug)
    version = datasets.find(
        call.store, request.owner_slug, request.dataset_slug, request.dataset_version_number or None
    )
    if version is None or not version.ready:
        raise WireError(404, "this dataset version is not there (yet)")
    return version


def _created(call: Call, version: datasets.Version) -> str:
    row = call.store.row(
        "SELECT created FROM dataset_version WHERE dataset = ? AND number = ?",
        (version.dataset, version.number),
    )
    assert row is not None
    return str(row["created"])


def _new_version(call: Call, row: sqlite3.Row, body: Any) -> Any:
    if row["owner"] != call.user:
        raise WireError(403, "Permission 'datasets.update' was denied")
    uploads = _uploads(call, body)
    if not uploads:
        return _refused("One or more of the uploaded files is missing or incomplete.")
    datasets.add_version(call.store, row["id"], uploads, body.version_notes or "")
    return _accepted(row["owner"], row["slug"])


def _uploads(call: Call, body: Any) -> list[datasets.Upload] | None:
    listed = list(_walk(body.files or [], body.directories or [], ""))
    return datasets.resolve_uploads(call.store, listed)


def _walk(files: Sequence[Any], directories: Sequence[Any], at: str) -> Iterator[datasets.Upload]:
    for file in files:
        yield datasets.Upload(file.token or "", at)
    for directory in directories:
        below = f"{at}{directory.name}/"
        yield from _walk(directory.files or [], directory.directories or [], below)


def _accepted(owner: str, slug: str) -> Any:
    return make(
        api.ApiCreateDatasetResponse,
        ref=f"{owner}/{slug}",
        url=f"{SITE}/datasets/{owner}/{slug}",
        status="Ok",
    )


def _refused(text: str) -> Any:
    return make(api.ApiCreateDatasetResponse, status="Error", error=text)


HANDLERS: Mapping[str, Handler] = {
    "blobs.BlobApiService/StartBlobUpload": start_blob_upload,
    "datasets.DatasetApiService/CreateDataset": create_dataset,
    "datasets.DatasetApiService/CreateDatasetVersion": create_dataset_version,
    "datasets.DatasetApiService/CreateDatasetVersionById": create_dataset_version_by_id,
    "datasets.DatasetApiService/GetDatasetStatus": get_dataset_status,
    "datasets.DatasetApiService/GetDataset": get_dataset,
    "datasets.DatasetApiService/GetDatasetMetadata": get_dataset_metadata,
    "datasets.DatasetApiService/ListDatasetFiles": list_dataset_files,
    "datasets.DatasetApiService/DownloadDataset": download_dataset,
}

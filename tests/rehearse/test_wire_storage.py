"""Uploads as GCS takes them, downloads as the client resumes them, datasets out of both."""

from __future__ import annotations

import io
import socket
import tarfile
import time
import zipfile
from urllib.parse import urlsplit

import pytest
import requests
from kagglesdk.blobs.types import blob_api_service as blob_api
from kagglesdk.competitions.types import competition_api_service as competitions
from kagglesdk.datasets.types import dataset_api_service as api

from kagflow.rehearse import datasets
from kagflow.rehearse.blobs import Links, blob_path, sign


def start(sdk, name, size):
    request = blob_api.ApiStartBlobUploadRequest()
    request.type = blob_api.ApiBlobType.DATASET
    request.name, request.content_length = name, size
    return sdk.blobs.blob_api_client.start_blob_upload(request)


def upload(sdk, name, data):
    started = start(sdk, name, len(data))
    assert requests.put(started.create_url, data=data).status_code == 200
    return started.token


def create(sdk, slug, tokens, directories=()):
    request = api.ApiCreateDatasetRequest()
    request.owner_slug, request.slug, request.title = "sdk-user", slug, slug
    request.license_name, request.is_private = "CC0-1.0", True
    request.files = [new_file(token) for token in tokens]
    request.directories = list(directories)
    return sdk.datasets.dataset_api_client.create_dataset(request)


def new_file(token):
    file = api.ApiDatasetNewFile()
    file.token = token
    return file


def listing(sdk, slug, wait_for):
    status = api.ApiGetDatasetStatusRequest()
    status.owner_slug, status.dataset_slug = "sdk-user", slug
    client = sdk.datasets.dataset_api_client
    wait_for(lambda: client.get_dataset_status(status).status.name in ("READY", "FAILED"))
    assert client.get_dataset_status(status).status.name == "READY"
    request = api.ApiListDatasetFilesRequest()
    request.owner_slug, request.dataset_slug = "sdk-user", slug
    files = client.list_dataset_files(request).dataset_files
    return {file.name: file.total_bytes for file in files}


def test_a_broken_upload_resumes_where_it_stopped(sdk):
    data = bytes(range(256)) * 4096  # 1 MiB
    started = start(sdk, "big.bin", len(data))
    where = urlsplit(started.create_url)
    with socket.create_connection((where.hostname, where.port)) as wire:
        head = f"PUT {where.path} HTTP/1.1\r\nHost: x\r\nContent-Length: {len(data)}\r\n\r\n"
        wire.sendall(head.encode() + data[:700_000])
        time.sleep(0.3)
    question = {"Content-Range": f"bytes */{len(data)}"}
    for _ in range(50):
        answer = requests.put(started.create_url, headers=question)
        if answer.headers.get("Range"):
            break
        time.sleep(0.05)
    assert answer.status_code == 308
    have = int(answer.headers["Range"].removeprefix("bytes=0-")) + 1
    assert 0 < have <= 700_000
    assert have % (256 * 1024) == 0
    rest = {"Content-Range": f"bytes {have}-{len(data) - 1}/{len(data)}"}
    assert requests.put(started.create_url, data=data[have:], headers=rest).status_code == 200
    assert requests.put(started.create_url, headers=question).status_code == 200


def test_a_kill_between_the_last_byte_and_its_note_loses_no_upload(sdk, kaggle_store):
    started = start(sdk, "a.bin", 10)
    blob_path(kaggle_store, started.token).write_bytes(b"0123456789")
    question = {"Content-Range": "bytes */10"}
    assert requests.put(started.create_url, headers=question).status_code == 200
    assert create(sdk, "noted-late", [started.token]).error in (None, "")


def test_an_upload_with_a_hole_or_too_much_is_not_taken(sdk):
    started = start(sdk, "a.bin", 10)
    hole = {"Content-Range": "bytes 5-9/10"}
    assert requests.put(started.create_url, data=b"12345", headers=hole).status_code == 308
    assert requests.put(started.create_url, data=b"x" * 11).status_code == 400
    assert requests.put(started.create_url[:-1] + "_", data=b"").status_code == 404


def test_an_unfinished_upload_makes_no_dataset(sdk):
    started = start(sdk, "a.bin", 10)
    answer = create(sdk, "unfinished", [started.token])
    assert "incomplete" in answer.error


def test_archives_are_unpacked_and_wheels_are_not(sdk, wait_for):
    zipped, tarred, wheel = io.BytesIO(), io.BytesIO(), io.BytesIO()
    for body in (zipped, wheel):
        with zipfile.ZipFile(body, "w") as archive:
            archive.writestr("in/a.txt", "a")
    with tarfile.open(fileobj=tarred, mode="w:gz") as archive:
        entry = tarfile.TarInfo("b.txt")
        entry.size = 2
        archive.addfile(entry, io.BytesIO(b"bb"))
    tokens = [
        upload(sdk, "one.zip", zipped.getvalue()),
        upload(sdk, "two.tar.gz", tarred.getvalue()),
        upload(sdk, "lib-1-py3-none-any.whl", wheel.getvalue()),
        upload(sdk, "not-really.zip", b"text"),
    ]
    assert create(sdk, "archives", tokens).ref == "sdk-user/archives"
    assert listing(sdk, "archives", wait_for) == {
        "one/in/a.txt": 1,
        "two/b.txt": 2,
        "lib-1-py3-none-any.whl": len(wheel.getvalue()),
        "not-really.zip": 4,
    }


def test_an_archive_that_climbs_out_fails_its_version(store):
    body = io.BytesIO()
    with zipfile.ZipFile(body, "w") as archive:
        archive.writestr("../../evil.txt", "x")
    (store.path / "blobs").mkdir()
    (store.path / "blobs" / "t").write_bytes(body.getvalue())
    values = {"owner": "o", "slug": "evil-set", "title": "t", "private": 1}
    datasets.create(store, values, [datasets.Upload("t", "evil.zip")])
    for _ in range(100):
        version = datasets.find(store, "o", "evil-set")
        if version.status in datasets.ENDED:
            break
        time.sleep(0.02)
    assert version.status == "FAILED"
    assert not list(store.path.rglob("evil.txt"))


def test_a_version_cut_off_by_a_kill_is_finished_later(store, wait_for):
    (store.path / "blobs").mkdir()
    (store.path / "blobs" / "t").write_bytes(b"abc")
    with store.write() as db:
        db.execute("INSERT INTO dataset VALUES (1, 'o', 'slow-set', 't', '', '', '', 1)")
        db.execute(
            "INSERT INTO dataset_version (dataset, number, status, created, files) "
            "VALUES (1, 1, 'BLOBS_RECEIVED', '2026-01-01T00:00:00', '[[\"t\", \"x/a.bin\"]]')"
        )
    datasets.resume_processing(store)
    version = wait_for(lambda: (v := datasets.find(store, "o", "slow-set")).ready and v)
    assert (version.tree / "x" / "a.bin").read_bytes() == b"abc"


def test_directories_keep_their_tree_and_versions_replace_all(sdk, wait_for):
    folder = api.ApiUploadDirectoryInfo()
    folder.name = "wheels"
    folder.files = [new_file(upload(sdk, "w.txt", b"www"))]
    create(sdk, "trees-set", [upload(sdk, "top.txt", b"t")], [folder])
    assert listing(sdk, "trees-set", wait_for) == {"top.txt": 1, "wheels/w.txt": 3}
    request = api.ApiCreateDatasetVersionRequest()
    request.owner_slug, request.dataset_slug = "sdk-user", "trees-set"
    request.body = api.ApiCreateDatasetVersionRequestBody()
    request.body.version_notes = "second"
    request.body.files = [new_file(upload(sdk, "only.txt", b"12"))]
    client = sdk.datasets.dataset_api_client
    assert client.create_dataset_version(request).status == "Ok"
    assert listing(sdk, "trees-set", wait_for) == {"only.txt": 2}
    asked = api.ApiGetDatasetRequest()
    asked.owner_slug, asked.dataset_slug = "sdk-user", "trees-set"
    found = client.get_dataset(asked)
    assert (found.current_version_number, found.is_private) == (2, True)
    assert [v.version_notes for v in found.versions] == ["second", "Initial release"]
    # By number, as a version of another upload.
    by_id = api.ApiCreateDatasetVersionByIdRequest()
    by_id.id, by_id.body = found.id, request.body
    assert client.create_dataset_version_by_id(by_id).status == "Ok"
    assert client.get_dataset(asked).current_version_number == 3


def test_another_users_private_dataset_is_denied(sdk):
    request = api.ApiGetDatasetRequest()
    request.owner_slug, request.dataset_slug = "somebody", "unknown-set"
    with pytest.raises(requests.HTTPError) as caught:
        sdk.datasets.dataset_api_client.get_dataset(request)
    assert caught.value.response.status_code == 403


@pytest.fixture
def archive(sdk, tiny, kaggle_store):
    request = competitions.ApiDownloadDataFilesRequest()
    request.competition_name = tiny.SLUG
    response = sdk.competitions.competition_api_client.download_data_files(request)
    assert urlsplit(response.url).path.endswith(f"/{tiny.SLUG}.zip")
    return response.url, response.content


def test_a_download_resumes_by_range(archive):
    url, whole = archive
    first = requests.get(url)
    assert first.headers["Content-Length"] == str(len(whole))
    assert first.headers["Accept-Ranges"] == "bytes"
    assert "Content-Encoding" not in first.headers
    tag = first.headers["ETag"]
    part = requests.get(url, headers={"Range": "bytes=100-", "If-Range": tag})
    assert (part.status_code, part.content) == (206, whole[100:])
    assert part.headers["Content-Range"] == f"bytes 100-{len(whole) - 1}/{len(whole)}"
    changed = requests.get(url, headers={"Range": "bytes=100-", "If-Range": '"other"'})
    assert (changed.status_code, changed.content) == (200, whole)
    beyond = requests.get(url, headers={"Range": f"bytes={len(whole)}-"})
    assert beyond.status_code == 416


def test_a_link_that_is_old_or_made_up_is_refused(archive, kaggle_store):
    url, _ = archive
    assert requests.get(url[:-1] + ("0" if url[-1] != "0" else "1")).status_code == 403
    path = "competitions/tiny-squares/solution.csv"
    old = int(time.time()) - 1
    base = url.partition("/storage/")[0]
    stale = f"{base}/storage/{path}?expires={old}&signature={sign(kaggle_store, path, old)}"
    assert requests.get(stale).status_code == 403
    assert requests.get(f"{base}/storage/{path}").status_code == 403
    good = Links(base, kaggle_store).download(kaggle_store.path / path)
    assert requests.get(good).status_code == 200

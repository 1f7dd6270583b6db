"""The client: every trap of the wire ends in a typed error or in the right bytes."""

from __future__ import annotations

import base64
import hashlib
import sys
from pathlib import Path

import pytest

from kagflow import process
from kagflow.errors import (
    AuthError,
    DataError,
    LocalError,
    NetworkError,
    RefusedError,
    RemoteError,
)
from kagflow.ship import remote_download
from kagflow.ship.remote import Remote
from kagflow.ship.remote_datasets import DatasetPush
from kagflow.ship.remote_transport import is_loopback
from kagflow.ship.remote_types import KernelPush

PUSH = KernelPush(
    ref="local/kernel-one",
    title="kernel one",
    text="print(1)\n",
    datasets=("local/pack/3",),
    competition="steel",
    machine_shape="NvidiaTeslaT4",
    timeout_s=3600,
)


def test_import_is_silent_and_light() -> None:
    code = (
        "import sys, kagflow.ship.remote, kagflow.ship.fetch, kagflow.ship.submit;"
        "print([m for m in ('kaggle', 'kagglesdk', 'torch') if m in sys.modules])"
    )
    done = process.run([sys.executable, "-c", code])
    assert done.stdout.strip() == "[]"
    assert done.stderr == ""


# -- transport


def test_reads_are_repeated_and_retry_after_is_kept(script, stub, tmp_path) -> None:
    waits: list[float] = []
    remote = Remote("local", url=stub, state=tmp_path, sleep=waits.append)
    script.rpc(
        "GetCompetition",
        (500, {}, b"<h1>oops</h1>"),
        (429, {"Retry-After": "7"}, b""),
        None,
        {"title": "Steel", "userHasEntered": True},
    )
    assert remote.competition("steel").title == "Steel"
    assert waits[1] == 7.0
    assert len(waits) == 3


def test_reads_give_up_with_exit_5(script, remote) -> None:
    script.rpc("GetCompetition", (503, {}, b'{"code": 503, "message": "later"}'))
    with pytest.raises(NetworkError, match="later"):
        remote.competition("steel")
    assert len(script.seen) == 5


@pytest.mark.parametrize(
    "body",
    [
        b'{"code": 400, "message": "bad wish"}',
        b'{"error": {"code": 400, "message": "bad wish", "status": "X"}}',
        b"<html><body>bad\n wish</body></html>",
    ],
)
def test_each_shape_of_error_is_read(script, remote, body) -> None:
    script.rpc("GetSubmissionLimits", (400, {}, body))
    with pytest.raises(RemoteError, match="bad wish"):
        remote.limits("steel")


def test_a_refusal_names_the_credential_and_hides_the_secret(script, stub, tmp_path) -> None:
    secret = "0123456789abcdef"
    url = stub.replace("http://", f"http://ann:{secret}@")
    remote = Remote("local", url=url, state=tmp_path)
    script.rpc("GetCompetition", (401, {}, f'{{"message": "key {secret} unknown"}}'.encode()))
    with pytest.raises(AuthError, match="the local server") as caught:
        remote.competition("steel")
    assert secret not in caught.value.message
    assert secret not in remote.source


def test_a_sign_in_page_is_no_answer(script, remote) -> None:
    script.rpc("GetSubmission", (200, {"Content-Type": "text/html"}, b"<html>sign in</html>"))
    with pytest.raises(NetworkError, match="not JSON"):
        remote.submission(1)


def test_shell_proxies_are_ignored(script, remote, monkeypatch) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    script.rpc("GetCompetition", {"title": "Steel"})
    assert remote.competition("steel").title == "Steel"


def test_the_local_profile_never_leaves_this_machine(script, stub, remote, tmp_path) -> None:
    with pytest.raises(RefusedError):
        Remote("local", url="http://kaggle.example", state=tmp_path)
    script.rpc("DownloadDataFiles", (302, {"Location": "http://storage.example/a.zip"}, b""))
    with pytest.raises(RefusedError, match=r"storage\.example"):
        remote.download("steel", tmp_path / "a.zip")
    script.rpc("DownloadDataFiles", (302, {"Location": f"{stub}/a.zip"}, b""))
    script.on("/a.zip", (302, {"Location": "http://storage.example/a.zip"}, b""))
    with pytest.raises(RefusedError, match=r"storage\.example"):
        remote.download("steel", tmp_path / "a.zip")
    script.rpc("GetDataset", (404, {}, b""))
    script.rpc("StartBlobUpload", {"token": "t", "createUrl": "http://storage.example/up"})
    with pytest.raises(RefusedError, match=r"storage\.example"):
        remote.dataset_create_or_version(dataset_push(tmp_path))


def test_loopback_is_told_by_address_and_not_by_look() -> None:
    assert is_loopback("http://127.0.0.1:80/x")
    assert is_loopback("http://[::1]:80")
    assert not is_loopback("http://127.0.0.1.example.com")
    assert not is_loopback("http://localhost.example")
    assert not is_loopback("http://127.0.0.1@example.com/")


def test_without_a_server_the_local_profile_says_so(tmp_path) -> None:
    with pytest.raises(LocalError, match="no server"):
        Remote("local", state=tmp_path)


def test_without_a_credential_the_kaggle_profile_says_so(tmp_path) -> None:
    with pytest.raises(AuthError, match="no Kaggle credential"):
        Remote("kaggle", state=tmp_path)


# -- competitions


def test_forbidden_data_is_told_apart(script, remote, tmp_path) -> None:
    script.rpc("DownloadDataFiles", (403, {}, b'{"message": "denied"}'))
    script.rpc("GetCompetition", {"title": "Steel"})
    with pytest.raises(RemoteError, match="not accepted the competition's rules") as caught:
        remote.download("steel", tmp_path / "a.zip")
    assert "/competitions/steel/rules" in caught.value.hint
    script.rpc("GetCompetition", {"title": "Steel", "userHasEntered": True})
    with pytest.raises(RemoteError, match="although the rules are accepted"):
        remote.download("steel", tmp_path / "a.zip")
    script.rpc("GetCompetition", (403, {}, b'{"message": "Permission was denied"}'))
    with pytest.raises(RemoteError, match="no competition 'steel'"):
        remote.files("steel")


def test_listings_are_read_to_the_last_page(script, remote) -> None:
    script.rpc(
        "ListSubmissions",
        {"submissions": [{"ref": 3, "status": "COMPLETE", "publicScore": "0.5"}]}
        | {"nextPageToken": "2"},
        {"submissions": [{"ref": 2, "status": "PENDING", "publicScore": ""}]},
    )
    newest, oldest = remote.submissions("steel")
    assert (newest.ref, newest.public) == (3, 0.5)
    assert (oldest.ref, oldest.public) == (2, None)


def test_a_lost_submission_is_found_by_its_message(script, remote) -> None:
    found = {"submissions": [{"ref": 9, "description": "run [x]"}]}
    script.rpc("ListSubmissions", {"submissions": []}, found)
    script.rpc("CreateCodeSubmission", None)
    ref = remote.submit("steel", "ann/k", version=3, file="submission.csv", message="run [x]")
    assert ref == 9
    assert len(script.bodies("CreateCodeSubmission")) == 1


# -- kernels


def test_a_push_is_private_offline_and_explicit_on_the_wire(script, remote) -> None:
    script.rpc("GetKernel", (403, {}, b"{}"))
    script.rpc("SaveKernel", {"ref": "/local/kernel-one", "versionNumber": 4})
    pushed = remote.push_kernel(PUSH)
    assert (pushed.ref, pushed.version) == ("local/kernel-one", 4)
    (sent,) = script.bodies("SaveKernel")
    assert sent["enableInternet"] is False
    assert sent["isPrivate"] is True
    assert sent["machineShape"] == "NvidiaTeslaT4"
    assert sent["sessionTimeoutSeconds"] == 3600
    assert sent["datasetDataSources"] == ["local/pack/3"]


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        ({"error": "Maximum batch GPU session count of 2 reached."}, "session count of 2"),
        ({"versionNumber": 4, "invalidDatasetSources": ["local/pack/3"]}, "local/pack/3"),
        ({"versionNumber": 4, "invalidModelSources": ["m"]}, "without some of its inputs"),
        ({}, "without a version"),
    ],
)
def test_a_push_refused_with_status_200_is_a_failure(script, remote, answer, words) -> None:
    script.rpc("GetKernel", (403, {}, b"{}"))
    script.rpc("SaveKernel", answer)
    with pytest.raises(RemoteError, match=words):
        remote.push_kernel(PUSH)


def test_a_lost_push_is_found_by_its_source(script, remote) -> None:
    before = {"metadata": {"currentVersionNumber": 3}, "blob": {"source": "old"}}
    after = {"metadata": {"currentVersionNumber": 4}, "blob": {"source": PUSH.text}}
    script.rpc("GetKernel", before, after)
    script.rpc("SaveKernel", None)
    assert remote.push_kernel(PUSH).version == 4
    assert len(script.bodies("SaveKernel")) == 1


def test_a_push_that_did_not_happen_is_repeated(script, remote) -> None:
    script.rpc("GetKernel", {"metadata": {"currentVersionNumber": 3}, "blob": {"source": "old"}})
    script.rpc("SaveKernel", (502, {}, b""), {"versionNumber": 4})
    assert remote.push_kernel(PUSH).version == 4
    assert len(script.bodies("SaveKernel")) == 2


@pytest.mark.parametrize(
    ("answer", "name"),
    [({}, "UNKNOWN"), ({"status": "BREWING"}, "BREWING"), ((404, {}, b""), "UNKNOWN")],
)
def test_a_status_that_says_nothing_keeps_us_waiting(script, remote, answer, name) -> None:
    script.rpc("GetKernelSessionStatus", answer)
    status = remote.kernel_status("ann/k-steel", 3)
    assert status.name == name
    assert not status.complete
    assert not status.failed
    assert script.bodies("GetKernelSessionStatus")[0]["versionLabel"] == "v3"


def test_outputs_stay_in_their_folder(script, stub, remote, tmp_path) -> None:
    files = [{"fileName": "a/b.csv", "url": f"{stub}/b"}]
    script.rpc("ListKernelSessionOutput", {"files": files})
    script.on("/b", (200, {}, b"1,2\n"))
    (path,) = remote.kernel_outputs("ann/k", 1, tmp_path / "out")
    assert path.read_bytes() == b"1,2\n"
    script.rpc("ListKernelSessionOutput", {"files": [{"fileName": "../x", "url": f"{stub}/b"}]})
    with pytest.raises(DataError, match="unsafe"):
        remote.kernel_outputs("ann/k", 1, tmp_path / "out")


def test_the_quota_left_is_without_what_is_held(script, remote) -> None:
    script.rpc(
        "GetAcceleratorQuotaStatistics",
        {
            "gpuQuota": {
                "timeUsed": "3600.5s",
                "timeReserved": "7200s",
                "totalTimeAllowed": "108000s",
            }
        }
        | {"quotaRefreshTime": "2026-11-28T00:00:00.000Z"},
    )
    view = remote.quota()
    assert view.gpu.left == pytest.approx(108000 - 3600.5 - 7200)
    assert view.tpu is None
    assert view.refresh.isoformat() == "2026-11-28T00:00:00+00:00"


# -- downloads

BODY = bytes(range(256)) * 1024
CHUNK = 65_536
CUT = 200_000
KEPT = CUT // CHUNK * CHUNK  # whole chunks of what came


@pytest.fixture(autouse=True)
def _small_chunks(monkeypatch):
    monkeypatch.setattr(remote_download, "CHUNK", CHUNK)


def serve(
    body: bytes, *, etag: str = '"v1"', cut: int | None = None, range_status: int = 206
) -> object:
    """Answer as storage does: whole, or the asked range; cut after some bytes of the body."""

    def answer(_: str, headers: dict[str, str], __: bytes) -> object:
        asked = headers.get("Range")
        out = {"ETag": etag} | ({"X-Cut": str(cut)} if cut is not None else {})
        if asked and range_status == 206 and headers.get("If-Range") == etag:
            start = int(asked.removeprefix("bytes=").rstrip("-"))
            out["Content-Range"] = f"bytes {start}-{len(body) - 1}/{len(body)}"
            return 206, out, body[start:]
        return 200, out, body

    return answer


@pytest.fixture
def get(script, stub, remote, tmp_path):
    """Download the scripted /a.zip and return the bytes."""
    script.rpc("DownloadDataFiles", (302, {"Location": f"{stub}/a.zip"}, b""))

    def run() -> bytes:
        return remote.download("steel", tmp_path / "a.zip").path.read_bytes()

    return run


def ranges(script) -> list[str | None]:
    return [headers.get("Range") for _, path, headers, _ in script.seen if path == "/a.zip"]


def test_a_broken_download_resumes(script, get) -> None:
    script.on("/a.zip", serve(BODY, cut=CUT), serve(BODY))
    assert get() == BODY
    first, second = ranges(script)
    assert first is None
    assert second == f"bytes={KEPT}-"


def test_the_credential_stays_away_from_storage(script, get) -> None:
    script.on("/a.zip", serve(BODY))
    get()
    (headers,) = [headers for _, path, headers, _ in script.seen if path == "/a.zip"]
    assert "Authorization" not in headers


def test_a_whole_answer_to_a_range_is_not_appended(script, get) -> None:
    script.on("/a.zip", serve(BODY, cut=CUT), serve(BODY, range_status=200))
    assert get() == BODY


def test_another_version_is_never_mixed_in(script, get) -> None:
    other = BODY[::-1]
    script.on("/a.zip", serve(BODY, cut=CUT), serve(other, etag='"v2"'))
    assert get() == other


@pytest.mark.parametrize(
    "content_range", [f"bytes {KEPT - 1}-{len(BODY) - 1}/{len(BODY)}", f"bytes {KEPT}-9/99", "junk"]
)
def test_a_wrong_range_is_not_appended(script, get, content_range) -> None:
    wrong = (206, {"ETag": '"v1"', "Content-Range": content_range}, BODY[KEPT - 1 :])
    script.on("/a.zip", serve(BODY, cut=CUT), wrong, serve(BODY))
    assert get() == BODY


def test_error_bodies_are_never_data(script, get) -> None:
    script.on("/a.zip", serve(BODY, cut=CUT), (403, {}, BODY[KEPT:]), (500, {}, b"x"), serve(BODY))
    assert get() == BODY
    asked = [path for _, path, _, _ in script.seen if path.endswith("DownloadDataFiles")]
    assert len(asked) == 4


def test_garbage_of_the_right_length_is_caught_by_the_checksum(script, get, tmp_path) -> None:
    digest = base64.b64encode(hashlib.md5(BODY).digest()).decode()
    good = {"x-goog-hash": f"crc32c=AAAAAA==,md5={digest}"}
    script.on("/a.zip", (200, dict(good), b"\0" * len(BODY)), (200, dict(good), BODY))
    assert get() == BODY
    script.on("/a.zip", (200, dict(good), b"\0" * len(BODY)))
    with pytest.raises(DataError, match="checksum"):
        get()


def test_a_download_that_never_ends_well_is_exit_5_and_keeps_its_part(
    script, get, tmp_path
) -> None:
    script.on("/a.zip", serve(BODY, cut=0), serve(BODY, cut=CUT), serve(BODY, cut=0))
    with pytest.raises(NetworkError, match="broke off 5 times") as caught:
        get()
    assert "resumes" in caught.value.hint
    assert not (tmp_path / "a.zip").exists()
    assert (tmp_path / "a.zip.part").stat().st_size == KEPT


# -- uploads


def dataset_push(tmp_path: Path) -> DatasetPush:
    folder = tmp_path / "pack"
    folder.mkdir(exist_ok=True)
    (folder / "a.bin").write_bytes(BODY)
    return DatasetPush("local/pack-one", "pack one", folder, "kagflow pack 0123")


def known(version: int, notes: str = "") -> dict:
    return {
        "currentVersionNumber": version,
        "versions": [{"versionNumber": version, "versionNotes": notes}],
    }


def test_a_broken_upload_goes_on_where_it_broke(script, stub, remote, tmp_path) -> None:
    push = dataset_push(tmp_path)
    script.rpc("GetDataset", (403, {}, b"{}"), known(1))
    script.rpc("StartBlobUpload", {"token": "t", "createUrl": f"{stub}/up"})
    script.on("/up", (503, {}, b""), (308, {"Range": "bytes=0-4095"}, b""), (200, {}, b"{}"))
    script.rpc("CreateDataset", {"status": "Ok"})
    assert remote.dataset_create_or_version(push) == 1
    puts = [(headers, body) for _, path, headers, body in script.seen if path == "/up"]
    assert puts[0][1] == BODY
    assert puts[1][0]["Content-Range"] == f"bytes */{len(BODY)}"
    assert puts[2][1] == BODY[4096:]
    assert puts[2][0]["Content-Range"] == f"bytes 4096-{len(BODY) - 1}/{len(BODY)}"
    assert script.bodies("CreateDataset")[0]["isPrivate"] is True


def test_an_expired_upload_begins_anew(script, stub, remote, tmp_path) -> None:
    script.rpc("GetDataset", (404, {}, b"{}"), known(1))
    script.rpc(
        "StartBlobUpload",
        {"token": "t1", "createUrl": f"{stub}/up1"},
        {"token": "t2", "createUrl": f"{stub}/up2"},
    )
    script.on("/up1", (404, {}, b""))
    script.on("/up2", (200, {}, b"{}"))
    script.rpc("CreateDataset", {"status": "Ok"})
    remote.dataset_create_or_version(dataset_push(tmp_path))
    assert script.bodies("CreateDataset")[0]["files"] == [{"token": "t2"}]


def test_what_is_there_is_not_uploaded(script, remote, tmp_path) -> None:
    script.rpc("GetDataset", known(5, "kagflow pack 0123"))
    assert remote.dataset_create_or_version(dataset_push(tmp_path)) == 5
    assert script.bodies("StartBlobUpload") == []


def test_a_lost_version_is_looked_up_before_it_is_repeated(script, stub, remote, tmp_path) -> None:
    script.rpc("GetDataset", known(5), known(6, "kagflow pack 0123"))
    script.rpc("StartBlobUpload", {"token": "t", "createUrl": f"{stub}/up"})
    script.on("/up", (200, {}, b"{}"))
    script.rpc("CreateDatasetVersion", None)
    assert remote.dataset_create_or_version(dataset_push(tmp_path)) == 6
    assert len(script.bodies("CreateDatasetVersion")) == 1


def test_a_refused_dataset_is_a_failure(script, stub, remote, tmp_path) -> None:
    script.rpc("GetDataset", (404, {}, b"{}"))
    script.rpc("StartBlobUpload", {"token": "t", "createUrl": f"{stub}/up"})
    script.on("/up", (200, {}, b"{}"))
    script.rpc("CreateDataset", {"status": "Error", "error": "title is in use"})
    with pytest.raises(RemoteError, match="title is in use"):
        remote.dataset_create_or_version(dataset_push(tmp_path))


def test_waiting_for_a_dataset(script, remote, tmp_path) -> None:
    push = dataset_push(tmp_path)
    script.rpc(
        "GetDatasetStatus", (403, {}, b"{}"), {}, {"status": "BLOBS_RECEIVED"}, {"status": "READY"}
    )
    script.rpc("GetDataset", known(1), known(2))
    script.rpc("ListDatasetFiles", {"datasetFiles": [{"name": "a.bin", "totalBytes": len(BODY)}]})
    remote.dataset_wait(push, 2)
    assert len(script.bodies("GetDataset")) == 2

    script.rpc("ListDatasetFiles", {"datasetFiles": [{"name": "a.bin", "totalBytes": 1}]})
    with pytest.raises(DataError, match=r"a\.bin did not arrive"):
        remote.dataset_wait(push, 2)
    script.rpc("GetDatasetStatus", {"status": "FAILED"})
    with pytest.raises(RemoteError, match="could not process"):
        remote.dataset_wait(push, 2)


def test_a_killed_upload_is_continued_by_the_next_process(script, stub, tmp_path) -> None:
    push = dataset_push(tmp_path)
    (push.folder / "b.bin").write_bytes(b"b" * 9)
    script.rpc("GetDataset", (404, {}, b"{}"), (404, {}, b"{}"), known(1))
    script.rpc("CreateDataset", {"status": "Ok"})
    script.rpc(
        "StartBlobUpload",
        {"token": "ta", "createUrl": f"{stub}/a"},
        {"token": "tb", "createUrl": f"{stub}/b"},
    )
    script.on("/a", (200, {}, b"{}"))
    script.on("/b", (503, {}, b""), (308, {"Range": "bytes=0-3"}, b""), (200, {}, b"{}"))

    def killed(_: float) -> None:
        raise KeyboardInterrupt

    first = Remote("local", url=stub, state=tmp_path / "state", sleep=killed)
    with pytest.raises(KeyboardInterrupt):
        first.dataset_create_or_version(push)
    again = Remote("local", url=stub, state=tmp_path / "state", sleep=lambda _: None)
    assert again.dataset_create_or_version(push) == 1
    assert len(script.bodies("StartBlobUpload")) == 2
    assert script.bodies("CreateDataset")[0]["files"] == [{"token": "ta"}, {"token": "tb"}]
    assert [body for _, path, _, body in script.seen if path == "/b"][-1] == b"b" * 5
    # A token is good for one version: nothing of it stays.
    assert not list((tmp_path / "state" / "uploads").iterdir())


def test_an_unfinished_upload_never_goes_to_another_account(script, stub, tmp_path) -> None:
    push = dataset_push(tmp_path)
    script.rpc("GetDataset", (404, {}, b"{}"))
    script.rpc("StartBlobUpload", {"token": "t", "createUrl": f"{stub}/up"})
    script.rpc("CreateDataset", (503, {}, b""))
    script.on("/up", (200, {}, b"{}"))
    for user in ("ann", "bob"):
        url = stub.replace("http://", f"http://{user}:local@")
        remote = Remote("local", url=url, state=tmp_path / "state", sleep=lambda _: None)
        with pytest.raises(NetworkError):
            remote.dataset_create_or_version(push)
    assert len(script.bodies("StartBlobUpload")) == 2

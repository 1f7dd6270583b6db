"""Refusals told apart, waits that the server asks for, and writes that are never sent blindly."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest

from kagflow.errors import AuthError, KagflowError, NetworkError, RefusedError, RemoteError
from kagflow.ship import credentials, remote_transport
from kagflow.ship.credentials import Credential
from kagflow.ship.remote import Remote
from kagflow.ship.remote_datasets import DatasetPush
from kagflow.ship.remote_transport import Transport
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
GONE = (404, {}, b'{"code": 404, "message": "gone"}')
DENIED = (403, {}, b'{"error": {"code": 403, "message": "denied", "status": "PERMISSION_DENIED"}}')


@pytest.fixture
def waits() -> list[float]:
    return []


@pytest.fixture
def patient(stub, tmp_path, waits) -> Remote:
    """A Remote whose waits are noted instead of slept."""
    return Remote("local", url=stub, state=tmp_path / "state", sleep=waits.append)


def kernel(version: int, source: str = "old") -> dict:
    return {"metadata": {"currentVersionNumber": version}, "blob": {"source": source}}


def methods(script) -> list[str]:
    return [path.rpartition("/")[2] for _, path, _, _ in script.seen]


def pack(tmp_path: Path, body: bytes = b"weights") -> DatasetPush:
    folder = tmp_path / "pack"
    folder.mkdir(exist_ok=True)
    (folder / "a.bin").write_bytes(body)
    return DatasetPush("local/pack-one", "pack one", folder, "kagflow pack 0123")


# -- 401


def test_a_401_names_the_source_and_what_it_shadows(script, stub, tmp_path, monkeypatch) -> None:
    home = tmp_path / "home"
    (home / ".kaggle").mkdir(parents=True)
    (home / ".kaggle" / "kaggle.json").write_text(json.dumps({"username": "ann", "key": "f" * 32}))
    chosen = credentials.choose({"KAGGLE_API_TOKEN": "stale-token"}, home)
    assert chosen.shadows == (str(home / ".kaggle" / "kaggle.json"),)
    monkeypatch.setattr("kagflow.ship.remote._site", lambda: stub)
    monkeypatch.setattr(credentials, "choose", lambda: chosen)
    script.rpc("GetCompetition", (401, {}, b"Unauthorized"))
    with pytest.raises(AuthError, match=r"credential: KAGGLE_API_TOKEN") as caught:
        Remote("kaggle", state=tmp_path).competition("steel")
    assert caught.value.exit_code == 3
    assert "used before" in caught.value.hint
    assert "kaggle.json" in caught.value.hint


def test_a_401_for_an_access_token_in_the_key_file_explains_it(
    script, stub, tmp_path, monkeypatch
) -> None:
    home = tmp_path / "home"
    (home / ".kaggle").mkdir(parents=True)
    content = {"username": "ann", "key": "KGAT_" + "0123456789abcdef" * 2}
    (home / ".kaggle" / "kaggle.json").write_text(json.dumps(content))
    chosen = credentials.choose({}, home)
    monkeypatch.setattr("kagflow.ship.remote._site", lambda: stub)
    monkeypatch.setattr(credentials, "choose", lambda: chosen)
    script.rpc("GetCompetition", (401, {}, b'{"message": "Unauthorized"}'))
    with pytest.raises(AuthError, match="its key is an access token") as caught:
        Remote("kaggle", state=tmp_path).competition("steel")
    assert "~/.kaggle/access_token" in caught.value.hint
    (headers,) = [headers for _, _, headers, _ in script.seen]
    assert headers["Authorization"] == f"Bearer {content['key']}"


def test_an_inactive_token_is_an_auth_error(script, stub, tmp_path, monkeypatch) -> None:
    chosen = Credential("token", "stale-token", "KAGGLE_API_TOKEN")
    monkeypatch.setattr("kagflow.ship.remote._site", lambda: stub)
    monkeypatch.setattr(credentials, "choose", lambda: chosen)
    script.rpc("IntrospectToken", {"active": False, "username": "ann"})
    with pytest.raises(AuthError, match="does not accept the token from KAGGLE_API_TOKEN"):
        Remote("kaggle", state=tmp_path).account()


def test_an_introspection_that_fails_is_no_bad_token(script, stub, tmp_path, monkeypatch) -> None:
    monkeypatch.setattr("kagflow.ship.remote._site", lambda: stub)
    chosen = Credential("token", "good-token", "KAGGLE_API_TOKEN")
    monkeypatch.setattr(credentials, "choose", lambda: chosen)
    script.rpc("IntrospectToken", (503, {}, b"<h1>busy</h1>"))
    with pytest.raises(NetworkError, match="busy"):
        Remote("kaggle", state=tmp_path, sleep=lambda _: None).account()


# -- 403 and 404


def test_a_misspelt_slug_names_the_nearest_that_were_entered(script, remote) -> None:
    script.rpc("GetCompetition", DENIED)
    listed = [{"ref": f"https://www.kaggle.com/competitions/{slug}"} for slug in ("titanic", "x")]
    page = {"competitions": listed, "nextPageToken": "2"}
    last = {"competitions": [{"ref": "https://www.kaggle.com/competitions/steel-defects"}]}
    script.rpc("ListCompetitions", page, last)
    with pytest.raises(RemoteError, match="no competition 'steel-defect'") as caught:
        remote.competition("steel-defect")
    assert "did you mean steel-defects?" in caught.value.hint
    assert script.bodies("ListCompetitions")[0]["group"] == "COMPETITION_LIST_TAB_ENTERED"
    assert caught.value.exit_code == 4


def test_a_slug_near_nothing_is_explained_without_the_list(script, remote) -> None:
    script.rpc("GetCompetition", GONE)
    script.rpc("ListCompetitions", (500, {}, b""))
    with pytest.raises(RemoteError, match="no competition 'steel'") as caught:
        remote.competition("steel")
    assert "address of its page" in caught.value.hint


def test_a_submission_without_accepted_rules_names_their_page(script, remote) -> None:
    script.rpc("ListSubmissions", {"submissions": []})
    script.rpc("CreateCodeSubmission", DENIED)
    script.rpc("GetCompetition", {"title": "Steel"})
    with pytest.raises(RemoteError, match="not accepted the competition's rules") as caught:
        remote.submit("steel", "ann/k", version=1, file="submission.csv", message="m")
    assert "/competitions/steel/rules" in caught.value.hint
    assert methods(script).count("CreateCodeSubmission") == 1


def test_a_daily_limit_is_told_in_kaggles_own_nested_words(script, remote) -> None:
    text = "Submission not allowed: Your team has used its daily Submission allowance (5) today"
    body = json.dumps({"error": {"code": 400, "message": text, "status": "INVALID_ARGUMENT"}})
    script.rpc("ListSubmissions", {"submissions": []})
    script.rpc("CreateCodeSubmission", (400, {}, body.encode()))
    with pytest.raises(RemoteError, match=r"daily Submission allowance \(5\)"):
        remote.submit("steel", "ann/k", version=1, file="submission.csv", message="m")
    assert methods(script).count("CreateCodeSubmission") == 1


@pytest.mark.parametrize("answer", [{"message": "version is not complete"}, {"ref": 0}, {}])
def test_a_submission_without_a_number_is_refused(script, remote, answer) -> None:
    script.rpc("ListSubmissions", {"submissions": []})
    script.rpc("CreateCodeSubmission", answer)
    with pytest.raises(RemoteError, match="not accepted"):
        remote.submit("steel", "ann/k", version=1, file="submission.csv", message="m")


@pytest.fixture
def versioned(script, stub) -> dict:
    """A dataset at version 5, ready for upload; returns how it looks with our version 6."""
    notes = {"versionNumber": 6, "versionNotes": "kagflow pack 0123"}
    old = {"currentVersionNumber": 5, "versions": [{"versionNumber": 5, "versionNotes": "x"}]}
    new = {"currentVersionNumber": 6, "versions": [*old["versions"], notes]}
    script.rpc("GetDataset", old, new)
    script.rpc("StartBlobUpload", {"token": "t", "createUrl": f"{stub}/up"})
    script.on("/up", (200, {}, b"{}"))
    script.rpc("GetDatasetStatus", {"status": "READY"})
    return old


def test_a_version_denied_while_the_one_before_is_processed_waits(
    script, patient, versioned, tmp_path, waits
) -> None:
    busy = {"status": "BLOBS_RECEIVED"}
    script.rpc("GetDatasetStatus", {"status": "READY"}, busy, busy, {}, {"status": "READY"})
    script.rpc("CreateDatasetVersion", DENIED, {"status": "Ok"})
    assert patient.dataset_create_or_version(pack(tmp_path)) == 6
    assert methods(script).count("CreateDatasetVersion") == 2
    assert len(waits) == 2


def test_a_version_waits_for_the_one_before_at_once(script, patient, versioned, tmp_path) -> None:
    script.rpc("GetDatasetStatus", {"status": "REPROCESSING"}, {"status": "READY"})
    script.rpc("CreateDatasetVersion", {"status": "Ok"})
    assert patient.dataset_create_or_version(pack(tmp_path)) == 6
    asked = methods(script)
    assert asked.index("CreateDatasetVersion") > asked.index("GetDatasetStatus") + 1


def test_a_version_denied_at_rest_is_somebody_elses(script, patient, versioned, tmp_path) -> None:
    script.rpc("CreateDatasetVersion", DENIED)
    with pytest.raises(RemoteError, match="lets this account not write it") as caught:
        patient.dataset_create_or_version(pack(tmp_path))
    assert "another account" in caught.value.hint
    assert methods(script).count("CreateDatasetVersion") == 1


def test_a_version_of_somebody_else_is_not_taken_for_ours(
    script, patient, versioned, tmp_path
) -> None:
    theirs = {"currentVersionNumber": 6, "versions": [{"versionNumber": 6, "versionNotes": "y"}]}
    ours = [{"versionNumber": 7, "versionNotes": "kagflow pack 0123"}]
    listed = {"currentVersionNumber": 7, "versions": theirs["versions"] + ours}
    script.rpc("GetDataset", versioned, theirs, theirs, theirs, listed)
    script.rpc("CreateDatasetVersion", None, {"status": "Ok"})
    assert patient.dataset_create_or_version(pack(tmp_path)) == 7
    assert methods(script).count("CreateDatasetVersion") == 2


def test_a_private_kernel_is_a_refusal_and_no_wait(script, remote) -> None:
    script.rpc("GetKernelSessionStatus", DENIED)
    with pytest.raises(RemoteError, match="denied") as caught:
        remote.kernel_status("bob/private", 1)
    assert "may this account see it" in caught.value.hint


# -- waits


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("7", 7.0),
        (" 7 ", 7.0),
        ("Wed, 21 Oct 2026 07:28:30 GMT", 30.0),
        ("Wed, 21 Oct 2026 07:27:00 GMT", 0.0),
        ("Wednesday, 21-Oct-26 07:28:30 GMT", 30.0),
        ("", None),
        ("soon", None),
        ("-5", None),
        ("7.5", None),
        ("\xb2", None),
        ("1e999", None),
        ("Wed, 99 Oct 99999999 07:28:30 GMT", None),
    ],
)
def test_every_form_of_retry_after(text, seconds) -> None:
    import requests

    from kagflow.ship.remote_errors import retry_after

    response = requests.Response()
    response.headers["Date"] = "Wed, 21 Oct 2026 07:28:00 GMT"
    response.headers["Retry-After"] = text
    assert retry_after(response) == seconds


def test_a_wait_beyond_ten_minutes_is_given_back_to_the_user(script, patient, waits) -> None:
    script.rpc("GetSubmissionLimits", (429, {"Retry-After": "601"}, b'{"message": "slow down"}'))
    with pytest.raises(NetworkError, match="slow down") as caught:
        patient.limits("steel")
    assert waits == []
    assert "601 seconds" in caught.value.hint
    assert caught.value.exit_code == 5


def test_all_waits_of_one_call_stay_below_ten_minutes(script, patient, waits) -> None:
    script.rpc("GetSubmissionLimits", (429, {"Retry-After": "250"}, b""))
    with pytest.raises(NetworkError):
        patient.limits("steel")
    assert sum(waits) <= 600


def test_waits_without_a_wish_are_jittered_and_at_most_a_minute() -> None:
    drawn = [remote_transport.pause(attempt) for attempt in range(1, 40) for _ in range(50)]
    assert min(drawn) >= 0
    assert max(drawn) <= 60
    early = [remote_transport.pause(3) for _ in range(200)]
    assert min(early) < 2 < 6 < max(early) <= 8


def test_a_server_that_hangs_is_left(script, remote, monkeypatch) -> None:
    monkeypatch.setattr(remote_transport, "TIMEOUT", (0.5, 0.05))

    def hang(*_: object) -> dict:
        time.sleep(0.3)
        return {}

    script.rpc("GetSubmissionLimits", hang)
    with pytest.raises(NetworkError, match="ReadTimeout"):
        remote.limits("steel")


def test_a_machine_that_is_not_there_is_exit_5(tmp_path) -> None:
    remote = Remote("local", url="http://127.0.0.1:9", state=tmp_path, sleep=lambda _: None)
    with pytest.raises(NetworkError, match="ConnectionError") as caught:
        remote.limits("steel")
    assert caught.value.exit_code == 5


# -- writes


def test_a_busy_push_waits_as_asked_and_looks_before_it_repeats(script, patient, waits) -> None:
    script.rpc("GetKernel", kernel(3))
    script.rpc("SaveKernel", (429, {"Retry-After": "17"}, b""), {"versionNumber": 4})
    assert patient.push_kernel(PUSH).version == 4
    assert methods(script) == ["GetKernel", "SaveKernel", "GetKernel", "SaveKernel"]
    assert waits == [17.0]


def test_a_push_that_shows_late_is_not_repeated(script, patient) -> None:
    script.rpc("GetKernel", kernel(3), kernel(3), kernel(3), kernel(4, PUSH.text))
    script.rpc("SaveKernel", (500, {}, b"<h1>oops</h1>"))
    assert patient.push_kernel(PUSH).version == 4
    assert methods(script).count("SaveKernel") == 1


def test_a_push_of_somebody_else_is_not_taken_for_ours(script, patient) -> None:
    script.rpc("GetKernel", kernel(3), kernel(4, "theirs"))
    script.rpc("SaveKernel", None, {"versionNumber": 5})
    assert patient.push_kernel(PUSH).version == 5
    assert methods(script).count("SaveKernel") == 2


def test_a_write_whose_fate_cannot_be_looked_up_is_not_repeated(script, patient) -> None:
    script.rpc("GetKernel", kernel(3), (503, {}, b""))
    script.rpc("SaveKernel", None)
    with pytest.raises(NetworkError):
        patient.push_kernel(PUSH)
    assert methods(script).count("SaveKernel") == 1


def test_a_write_asked_to_wait_for_hours_is_left(script, patient, waits) -> None:
    script.rpc("GetKernel", kernel(3))
    script.rpc("SaveKernel", (429, {"Retry-After": "7200"}, b""))
    with pytest.raises(NetworkError) as caught:
        patient.push_kernel(PUSH)
    assert "7200 seconds" in caught.value.hint
    assert methods(script).count("SaveKernel") == 1
    assert waits == []


@pytest.mark.parametrize("status", [400, 401, 403, 404, 409, 422])
def test_a_refused_write_is_sent_once(script, remote, status) -> None:
    script.rpc("GetKernel", kernel(3))
    script.rpc("SaveKernel", (status, {}, b'{"message": "no"}'))
    with pytest.raises(KagflowError, match="no"):
        remote.push_kernel(PUSH)
    assert methods(script).count("SaveKernel") == 1


@pytest.mark.parametrize(
    ("error", "hint"),
    [
        ("Maximum batch GPU session count of 2 reached.", "running kernel ends"),
        ("Maximum weekly GPU quota of 30.00 hours reached.", "kagflow quota"),
        ("Notebook not found", ""),
    ],
)
def test_a_push_refused_for_want_of_a_slot_or_hours_says_what_next(
    script, remote, error, hint
) -> None:
    script.rpc("GetKernel", kernel(3))
    script.rpc("SaveKernel", {"error": error, "versionNumber": 4})
    with pytest.raises(RemoteError, match=error[:20]) as caught:
        remote.push_kernel(PUSH)
    assert hint in caught.value.hint
    assert methods(script).count("SaveKernel") == 1


# -- uploads


def test_an_upload_that_goes_on_is_never_given_up(script, patient, versioned, tmp_path) -> None:
    body = bytes(range(200))
    breaks = [
        one
        for end in range(0, 120, 10)
        for one in ((503, {}, b""), (308, {"Range": f"bytes=0-{end}"}, b""))
    ]
    script.on("/up", *breaks, (200, {}, b"{}"))
    script.rpc("CreateDatasetVersion", {"status": "Ok"})
    assert patient.dataset_create_or_version(pack(tmp_path, body)) == 6
    assert [sent for _, path, _, sent in script.seen if path == "/up"][-1] == body[111:]


def test_an_upload_that_stands_still_is_given_up(script, patient, versioned, tmp_path) -> None:
    script.on("/up", (503, {}, b""), (308, {}, b""), (503, {}, b""), (308, {}, b""), (503, {}, b""))
    with pytest.raises(NetworkError, match="broke off 8 times"):
        patient.dataset_create_or_version(pack(tmp_path))
    assert "CreateDatasetVersion" not in methods(script)


def test_an_upload_link_that_expired_is_renewed(script, stub, patient, versioned, tmp_path) -> None:
    script.rpc(
        "StartBlobUpload",
        {"token": "t1", "createUrl": f"{stub}/old"},
        {"token": "t2", "createUrl": f"{stub}/up"},
    )
    script.on("/old", (403, {}, b"<Error>Expired</Error>"))
    script.rpc("CreateDatasetVersion", {"status": "Ok"})
    patient.dataset_create_or_version(pack(tmp_path))
    assert script.bodies("CreateDatasetVersion")[0]["body"]["files"] == [{"token": "t2"}]


def test_a_refused_file_is_never_dropped_from_the_version(
    script, patient, versioned, tmp_path
) -> None:
    script.on("/up", (413, {}, b"too large"))
    with pytest.raises(RemoteError, match="too large"):
        patient.dataset_create_or_version(pack(tmp_path))
    assert "CreateDatasetVersion" not in methods(script)


def test_an_empty_file_is_sent_with_its_length(script, patient, versioned, tmp_path) -> None:
    script.rpc("CreateDatasetVersion", {"status": "Ok"})
    patient.dataset_create_or_version(pack(tmp_path, b""))
    (headers,) = [headers for _, path, headers, _ in script.seen if path == "/up"]
    assert headers["Content-Length"] == "0"


# -- listings and links


def test_a_listing_that_turns_in_circles_ends(script, remote) -> None:
    one = {"submissions": [{"ref": 1}], "nextPageToken": "a"}
    two = {"submissions": [{"ref": 2}], "nextPageToken": "b"}
    script.rpc("ListSubmissions", one, two, one, two, {"submissions": []})
    assert [item.ref for item in remote.submissions("steel")] == [1, 2, 1]


def test_kernel_outputs_come_from_every_page(script, stub, remote, tmp_path) -> None:
    def page(name: str, token: str) -> dict:
        file = {"fileName": name, "url": f"{stub}/{name}"}
        return {"files": [file], "nextPageToken": token}

    script.rpc("ListKernelSessionOutput", page("a", "2"), page("b", ""))
    script.on("/a", (200, {}, b"a"))
    script.on("/b", (200, {}, b"b"))
    paths = remote.kernel_outputs("ann/k", 1, tmp_path / "out")
    assert [path.read_bytes() for path in paths] == [b"a", b"b"]


def test_a_redirect_to_nowhere_is_no_link(script, remote, tmp_path) -> None:
    script.rpc("DownloadDataFiles", (302, {}, b""))
    with pytest.raises(RemoteError, match="no link"):
        remote.download("steel", tmp_path / "a.zip")


def test_a_body_in_place_of_a_link_is_refused(script, remote, tmp_path) -> None:
    script.rpc("DownloadDataFiles", {"url": "http://127.0.0.1/a.zip"})
    with pytest.raises(RemoteError, match="no download link"):
        remote.download("steel", tmp_path / "a.zip")


def test_a_log_stream_never_leaves_this_machine(script, stub, remote) -> None:
    script.on("k", (302, {"Location": f"{stub}/elsewhere"}, b""))
    script.on("/elsewhere", (200, {"Content-Type": "text/plain"}, b"[]"))
    assert list(remote.kernel_stream("ann/k", 1)) == []
    assert len(script.seen) == 1


def test_no_link_is_less_safe_than_the_endpoint() -> None:
    secure = Transport(
        "https://api.kaggle.com", Credential("token", "t", "a test"), loopback_only=False
    )
    secure.check("https://storage.googleapis.com/a.zip")
    for url in ("http://storage.googleapis.com/a.zip", "http://127.0.0.1:80/up", "file:///etc"):
        with pytest.raises(RefusedError, match="without encryption"):
            secure.check(url)


@pytest.mark.parametrize("url", ["http://[bad", "", "http://", "nonsense", "http://999.1.1.1"])
def test_what_is_no_address_is_not_this_machine(url) -> None:
    assert not remote_transport.is_loopback(url)


def test_snake_case_never_goes_over_the_wire(script, remote) -> None:
    script.rpc("GetKernel", GONE)
    script.rpc("SaveKernel", {"versionNumber": 1})
    remote.push_kernel(PUSH)
    for _, _, _, body in script.seen:
        assert not [name for name in json.loads(body) if "_" in name]


def test_a_duration_of_days_and_fractions_is_read_whole(script, remote) -> None:
    quota = {"timeUsed": "71094.4s", "totalTimeAllowed": "108000s"}
    script.rpc("GetAcceleratorQuotaStatistics", {"gpuQuota": quota, "tpuQuota": {}})
    gpu = remote.quota().gpu
    assert (gpu.used, gpu.total, gpu.reserved) == (71094.4, 108000.0, 0.0)


def test_a_submission_that_is_not_visible_yet_is_pending(script, remote) -> None:
    script.rpc("GetSubmission", GONE, {"ref": 7, "status": "BREWING"}, {"ref": 7})
    assert [remote.submission(7).status for _ in range(3)] == ["PENDING", "BREWING", "UNKNOWN"]

from __future__ import annotations

import base64
import inspect
import os
import socket
from datetime import datetime, timedelta
from urllib.parse import urlsplit

import pytest
import requests
from kagglesdk.common.types.http_redirect import HttpRedirect
from kagglesdk.competitions.types import competition_api_service as competitions
from kagglesdk.kaggle_object import KaggleObject
from kagglesdk.kernels.types import kernels_api_service as kernels
from kagglesdk.kernels.types.kernels_enums import KernelWorkerStatus
from kagglesdk.security.types.oauth_service import IntrospectTokenRequest

from kagflow.rehearse import app, peers, server
from kagflow.rehearse.peers import may_talk
from kagflow.rehearse.wire import WireError, decode, encode, make, page, rpcs, user_of


def test_every_handler_is_a_call_of_the_installed_sdk():
    assert len(rpcs()) > 100
    assert set(app.HANDLERS) <= set(rpcs())


def test_introspection_finds_the_types():
    rpc = rpcs()["competitions.CompetitionApiService/DownloadDataFiles"]
    assert rpc.request is competitions.ApiDownloadDataFilesRequest
    assert rpc.response is HttpRedirect


@pytest.mark.parametrize(
    ("span", "text"),
    [
        (timedelta(hours=30), "108000s"),
        (timedelta(seconds=1.5), "1.5s"),
        (timedelta(seconds=71094, milliseconds=420), "71094.42s"),
        (timedelta(0), "0s"),
        (timedelta(seconds=100), "100s"),
    ],
)
def test_durations_come_back_as_they_went(span, text):
    quota = make(kernels.ApiAcceleratorQuota, time_used=span)
    assert encode(quota)["timeUsed"] == text
    assert kernels.ApiAcceleratorQuota.from_dict(encode(quota)).time_used == span


def test_objects_survive_the_wire():
    made = make(
        kernels.ApiGetKernelSessionStatusResponse,
        status=KernelWorkerStatus.QUEUED,
        failure_message="x",
    )
    assert encode(made) == {"status": "QUEUED", "failureMessage": "x"}
    when = datetime.fromisoformat("2030-01-02T03:04:05")
    entry = make(competitions.ApiCompetition, deadline=when, id=7)
    back = competitions.ApiCompetition.from_dict(encode(entry))
    assert (back.deadline, back.id) == (when, 7)
    assert isinstance(back, KaggleObject)


@pytest.mark.parametrize("body", [b"{", b"[1]", b'{"group": "NO_SUCH"}'])
def test_a_malformed_request_is_a_400(body):
    with pytest.raises(WireError) as caught:
        decode(competitions.ApiListSubmissionsRequest, body)
    assert caught.value.status == 400


def test_pages_join_to_the_whole():
    request, seen = competitions.ApiListDataFilesRequest(), []
    request.page_size = 3
    while True:
        items, token = page(list(range(8)), request)
        seen += items
        if token is None:
            break
        request.page_token = token
    assert seen == list(range(8))
    request.page_token = "x"
    with pytest.raises(WireError):
        page([1], request)


def test_the_default_page_is_twenty():
    items, token = page(list(range(21)), competitions.ApiListDataFilesRequest())
    assert (len(items), token) == (20, "20")


def basic(text):
    return "Basic " + base64.b64encode(text.encode()).decode()


@pytest.mark.parametrize(
    ("header", "user"),
    [
        (basic("me:secret"), "me"),
        (basic("me:local"), "me"),
        (basic("me:other"), None),
        (basic(":secret"), None),
        ("Basic %%%", None),
        ("Bearer secret", "local"),
        ("Bearer other", None),
        (None, None),
    ],
)
def test_who_asks(header, user):
    assert user_of(header, "secret") == user


def test_other_peoples_processes_are_refused(tmp_path):
    table = tmp_path / "tcp"
    table.write_text(
        "  sl  local_address rem_address st tx_queue tr tm->when retrnsmt uid timeout inode\n"
        "   0: 0100007F:1F90 0100007F:2328 01 00:00 00:00 00 4242 0 1\n"
        "   1: 0100007F:1F91 0100007F:2328 01 00:00 00:00 00 0 0 1\n"
    )
    assert not may_talk(("127.0.0.1", 0x1F90), table)
    assert may_talk(("127.0.0.1", 0x1F91), table), "root"
    assert may_talk(("127.0.0.1", 1), table), "unknown to the table"
    assert may_talk(("127.0.0.1", 0x1F90), tmp_path / "none"), "no Linux"


@pytest.mark.skipif(os.getuid() != 0, reason="only root can become somebody else")
@pytest.mark.parametrize("header", [b"", b"X-Forwarded-For: 127.0.0.1\r\n"])
def test_somebody_elses_connection_is_refused(kaggle_store, header):
    where = urlsplit(server.status(kaggle_store.path).url)

    def status():
        with socket.create_connection((where.hostname, where.port)) as wire:
            wire.sendall(b"GET /kagflow/health HTTP/1.1\r\nHost: x\r\n" + header + b"\r\n")
            return int(wire.recv(100).split()[1])

    child = os.fork()
    if child == 0:
        os.setuid(65534)
        os._exit(status() // 100)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 4
    assert status() == 200


def test_the_kernel_and_its_table_name_the_same_owner():
    with (
        socket.create_server(("127.0.0.1", 0)) as bound,
        socket.create_connection(bound.getsockname()) as wire,
    ):
        asked = peers._ask(wire.getsockname(), bound.getsockname())
        assert peers._listed(wire.getsockname(), peers.TABLE) == {os.getuid()}
        assert asked in (os.getuid(), None)
        assert peers._ask(("127.0.0.1", 1), bound.getsockname()) is None


# -- over the real thing


@pytest.fixture
def url(kaggle_store):
    return server.status(kaggle_store.path).url


def test_the_sdk_lists_by_pages(sdk, tiny):
    client = sdk.competitions.competition_api_client
    request = competitions.ApiListDataFilesRequest()
    request.competition_name, request.page_size = tiny.SLUG, 5
    first = client.list_data_files(request)
    request.page_token = first.next_page_token
    second = client.list_data_files(request)
    names = [file.name for file in first.files + second.files]
    assert names == sorted(set(names))
    assert (len(first.files), bool(second.next_page_token)) == (5, False)


def test_the_sdk_reads_quota_and_competition(sdk, tiny):
    quota = sdk.kernels.kernels_api_client.get_accelerator_quota_statistics()
    assert quota.gpu_quota.total_time_allowed == timedelta(hours=30)
    assert quota.quota_refresh_time.weekday() == 5
    request = competitions.ApiGetCompetitionRequest()
    request.competition_name = tiny.SLUG
    found = sdk.competitions.competition_api_client.get_competition(request)
    assert found.user_has_entered
    assert found.host_name == "kagflow-tests"
    assert found.max_daily_submissions == 5


def test_errors_are_nested_and_carry_their_text(sdk):
    request = competitions.ApiGetCompetitionRequest()
    request.competition_name = "nothing"
    with pytest.raises(requests.HTTPError) as caught:
        sdk.competitions.competition_api_client.get_competition(request)
    error = caught.value.response.json()["error"]
    assert (error["code"], error["status"]) == (403, "PERMISSION_DENIED")
    assert error["message"] == "Permission 'competitions.get' was denied"


def test_what_is_not_there_is_a_501_and_nonsense_a_404(url):
    auth = ("me", "local")
    for prefix in ("/api/v1", "/v1"):
        missing = requests.post(
            f"{url}{prefix}/models.ModelApiService/CreateModel", "{}", auth=auth
        )
        assert missing.status_code == 501
        assert "CreateModel" in missing.json()["error"]["message"]
    assert requests.post(f"{url}/v1/a.B/C", "{}", auth=auth).status_code == 404


def test_a_token_introspects_before_it_is_used(sdk, kaggle_store):
    for token, active in ((kaggle_store.token, True), ("other", False)):
        request = IntrospectTokenRequest()
        request.token = token
        answer = sdk.security.oauth_client.introspect_token(request)
        assert answer.active is active
        assert answer.username == ("local" if active else "")


def test_a_proxy_target_is_served_and_connect_refused(url):
    proxies = {"http": url, "https": url}
    listed = requests.post(
        "http://localhost/api/v1/competitions.CompetitionApiService/ListCompetitions",
        "{}",
        auth=("me", "local"),
        proxies=proxies,
    )
    assert len(listed.json()["competitions"]) == 2
    with pytest.raises(requests.exceptions.ProxyError, match="403"):
        requests.get("https://api.kaggle.com/v1/x", proxies=proxies, timeout=5)


def test_handlers_say_what_they_answer():
    for handler in app.HANDLERS.values():
        assert inspect.getdoc(handler)

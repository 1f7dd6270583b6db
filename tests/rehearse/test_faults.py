"""Every fault on demand, seen through the client or on the bare wire."""

from __future__ import annotations

import contextlib
import importlib.util
import json
from dataclasses import replace
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from pathlib import Path

import pytest
import requests

from kagflow.errors import AuthError, DataError, KagflowError, NetworkError, RemoteError
from kagflow.rehearse import faults
from kagflow.rehearse import settings as settings_file
from kagflow.rehearse.faults import KINDS, NAMED, Fault, FilePlan, Plan
from kagflow.ship import remote_transport
from kagflow.ship.remote import Remote
from kagflow.ship.remote_datasets import DatasetPush
from kagflow.ship.remote_types import KernelPush


@pytest.fixture(scope="module")
def served(tiny, tiny_folder, tmp_path_factory):
    path = Path(__file__).parents[1] / "gauntlet" / "served.py"
    spec = importlib.util.spec_from_file_location("served_for_faults", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    with module.serve(tmp_path_factory.mktemp("faulty") / "store") as one:
        one.store.add_competition(tiny.make_facts(), tiny_folder)
        settings_file.change(one.store.path, dataset_ready_s=0.0)
        yield one


@pytest.fixture
def remote(served, tmp_path, monkeypatch):
    """A client that remembers how long it wanted to sleep, and does not wait long for answers."""
    monkeypatch.setattr(remote_transport, "TIMEOUT", (1, 0.3))
    slept: list[float] = []
    made = Remote("local", url=served.url, state=tmp_path / "state", sleep=slept.append)
    made.slept = slept
    yield made
    served.plan.set(())


def plan(served, *planned):
    served.plan.set([NAMED[one] if isinstance(one, str) else one for one in planned])


def push(name="faulty-kernel", **changes):
    values = {
        "ref": f"local/{name}",
        "title": name,
        "text": f"print('{name}')",
        "datasets": (),
        "competition": "tiny-squares",
        "machine_shape": "None",
        "timeout_s": 60,
    }
    return KernelPush(**{**values, **changes})


def versions(served, slug):
    row = served.store.row(
        "SELECT COUNT(*) AS n FROM kernel_version v JOIN kernel k ON k.id = v.kernel "
        "WHERE k.slug = ?",
        (slug,),
    )
    return row["n"]


@pytest.mark.parametrize(
    ("name", "error"),
    [("unauthenticated", AuthError), ("forbidden", RemoteError), ("missing", RemoteError)],
)
def test_refusals_keep_their_kind_and_text(served, remote, name, error):
    plan(served, name)
    with pytest.raises(error, match=r"40[134]") as caught:
        remote.limits("tiny-squares")
    assert NAMED[name].text in caught.value.message


@pytest.mark.parametrize("name", ["busy", "broken", "unavailable", "dropped", "sign-in-page"])
def test_reads_survive_what_passes(served, remote, name):
    plan(served, name)
    try:
        assert remote.limits("tiny-squares").left == 5
    except NetworkError:
        # A page instead of an answer is said at once: a network's sign-in does not pass by itself.
        assert name == "sign-in-page"
    assert len(served.plan.happened) == 1


@pytest.mark.parametrize("name", ["busy-seconds", "busy-date"])
def test_retry_after_is_told_both_ways(served, remote, name):
    plan(served, name)
    remote.limits("tiny-squares")
    assert 0.5 < remote.slept[0] <= 2.0


def test_a_hanging_answer_is_given_up_and_asked_again(served, remote):
    plan(served, "hanging")
    assert remote.limits("tiny-squares").left == 5


def test_half_an_answer_is_none(served, remote):
    plan(served, "half-an-answer")
    assert remote.limits("tiny-squares").left == 5


@pytest.mark.parametrize("shape", ["nested", "flat", "html"])
def test_error_bodies_come_in_three_shapes(served, remote, shape):
    plan(served, Fault("*", "status", status=400, text="no such luck", shape=shape))
    with pytest.raises(RemoteError, match="no such luck"):
        remote.limits("tiny-squares")


@pytest.mark.parametrize("shape", ["nested", "flat", "html"])
def test_the_store_chooses_the_shape_of_its_own_errors(served, remote, shape):
    settings_file.change(served.store.path, error_shape=shape)
    try:
        with pytest.raises(RemoteError, match="denied"):
            remote.limits("no-such-competition")
    finally:
        settings_file.change(served.store.path, error_shape="nested")


def test_a_lost_answer_had_its_effect_and_is_found(served, remote):
    plan(served, Fault("SaveKernel", "lost"))
    assert remote.push_kernel(push("lost-answer")).version == 1
    assert versions(served, "lost-answer") == 1


def test_a_dropped_push_had_none_and_is_sent_again(served, remote):
    plan(served, Fault("SaveKernel", "drop"))
    assert remote.push_kernel(push("dropped-push")).version == 1
    assert versions(served, "dropped-push") == 1


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("invalid-source", "local/gone"),
        ("no-version", "without a version"),
        ("no-slot", "session count of 2"),
        ("no-quota", "weekly GPU quota"),
    ],
)
def test_a_push_refused_with_status_200_is_an_error(served, remote, name, says):
    plan(served, name)
    with pytest.raises(RemoteError, match=says):
        remote.push_kernel(push(f"refused-{name}"))
    refused = NAMED[name].effect is False
    assert versions(served, f"refused-{name}") == (0 if refused else 1)


def test_a_status_can_be_another_versions(served, remote, wait_for):
    first = remote.push_kernel(push("two-versions"))
    wait_for(lambda: remote.kernel_status(first.ref, 1).complete)
    settings_file.change(served.store.path, kernel_queue_s=0.7)
    try:
        remote.push_kernel(push("two-versions", text="print(2)"))
        assert remote.kernel_status(first.ref, 1).complete
        plan(served, "kernel-other-version")
        assert not remote.kernel_status(first.ref, 1).complete
    finally:
        settings_file.change(served.store.path, kernel_queue_s=0.0)


@pytest.mark.parametrize(
    ("name", "seen"),
    [("kernel-stuck", "RUNNING"), ("kernel-cancelled", "CANCEL_ACKNOWLEDGED")],
)
def test_a_kernel_can_be_stuck_or_cancelled(served, remote, name, seen):
    pushed = remote.push_kernel(push(f"told-{name}"))
    plan(served, name)
    for _ in range(3):
        assert remote.kernel_status(pushed.ref, 1).name == seen


def test_a_daily_limit_is_told_in_kaggles_words(served, remote, wait_for):
    pushed = remote.push_kernel(push("limited"))
    wait_for(lambda: remote.kernel_status(pushed.ref, 1).complete)
    plan(served, "daily-limit")
    with pytest.raises(RemoteError, match="daily Submission allowance"):
        remote.submit("tiny-squares", pushed.ref, version=1, file="submission.csv", message="m")


@pytest.mark.parametrize("name", ["dataset-slow", "dataset-again", "dataset-nothing"])
def test_a_dataset_that_takes_its_time_is_waited_for(served, remote, tmp_path, name):
    pack = folder(tmp_path / "pack", name)
    plan(served, name)
    version = remote.dataset_create_or_version(pack)
    remote.dataset_wait(pack, version)
    assert len(served.plan.happened) == NAMED[name].times


def test_a_failed_dataset_is_an_error(served, remote, tmp_path):
    pack = folder(tmp_path / "pack", "failed-set")
    plan(served, "dataset-failed")
    with pytest.raises(RemoteError, match="FAILED"):
        remote.dataset_wait(pack, remote.dataset_create_or_version(pack))


def folder(path, name):
    path.mkdir()
    (path / "weights.bin").write_bytes(bytes(range(256)) * 20)
    return DatasetPush(f"local/{name}", name, path, f"mark-{name}")


@pytest.mark.parametrize("name", ["cut-upload", "expired-upload", "cut-in-the-body"])
def test_a_broken_upload_ends_whole(served, remote, tmp_path, name):
    pack = folder(tmp_path / "pack", name)
    fault = Fault("upload", "cut", byte=1000) if name == "cut-in-the-body" else NAMED[name]
    plan(served, fault)
    version = remote.dataset_create_or_version(pack)
    remote.dataset_wait(pack, version)
    assert served.plan.happened
    tree = served.store.path / "datasets" / "local" / name / "1"
    assert (tree / "weights.bin").read_bytes() == (pack.folder / "weights.bin").read_bytes()


@pytest.mark.parametrize(
    "planned",
    [
        ["cut-download"],
        ["cut-download", "whole-for-range"],
        ["cut-download", "shifted-range"],
        ["cut-download", "expired-link"],
        ["expired-link"],
        ["cut-download", "unavailable"],
    ],
    ids="+".join,
)
def test_a_broken_download_ends_whole(served, remote, tmp_path, planned):
    chosen = [NAMED[one] for one in planned]
    plan(served, *[one if one.at != "*" else replace(one, at="storage") for one in chosen])
    remote.download("tiny-squares", tmp_path / "data.zip")
    whole = served.store.archive("tiny-squares").read_bytes()
    assert (tmp_path / "data.zip").read_bytes() == whole
    assert len(served.plan.happened) == len(planned)


def test_garbage_of_the_right_length_is_noticed_by_its_hash(served, remote, tmp_path):
    settings_file.change(served.store.path, hash_sent=True)
    try:
        plan(served, "garbage-download")
        remote.download("tiny-squares", tmp_path / "data.zip")
    finally:
        settings_file.change(served.store.path, hash_sent=False)
    assert served.plan.happened
    whole = served.store.archive("tiny-squares").read_bytes()
    assert (tmp_path / "data.zip").read_bytes() == whole


def test_the_clock_can_be_wrong(served):
    def ahead():
        shown = requests.get(f"{served.url}/kagflow/health").headers["Date"]
        return (parsedate_to_datetime(shown) - datetime.now(UTC)).total_seconds()

    assert abs(ahead()) < 5
    settings_file.change(served.store.path, clock_skew_s=900.0)
    try:
        assert 890 < ahead() < 905
    finally:
        settings_file.change(served.store.path, clock_skew_s=0.0)
    plan(served, "wrong-clock")
    answer = requests.post(f"{served.url}/v1/kernels.KernelsApiService/GetKernel")
    shown = parsedate_to_datetime(answer.headers["Date"])
    assert (shown - datetime.now(UTC)).total_seconds() > 800
    plan(served)


def test_faults_come_in_order_as_often_as_planned():
    one = Plan([Fault("Get*", "drop", times=2, skip=1), Fault("*", "slow")])
    assert one.take("GetKernel").do == "slow"  # the first is skipped once, the second takes over
    assert [one.take("GetKernel").do for _ in range(2)] == ["drop", "drop"]
    assert one.take("GetKernel") is None
    assert one.happened == [("GetKernel", "slow"), ("GetKernel", "drop"), ("GetKernel", "drop")]


def test_a_stores_file_plans_faults_for_its_server(tmp_path):
    followed = FilePlan(tmp_path)
    assert followed.take("GetKernel") is None
    faults.write(tmp_path, [NAMED["no-slot"]])
    assert followed.take("GetKernel") is None
    assert followed.take("SaveKernel").fields == NAMED["no-slot"].fields
    assert followed.take("SaveKernel") is None
    faults.write(tmp_path, [NAMED["broken"]])
    assert followed.take("SaveKernel").status == 500
    faults.write(tmp_path, [])
    assert followed.take("SaveKernel") is None


def test_unknown_faults_are_refused(tmp_path):
    with pytest.raises(DataError, match="explode"):
        Fault("*", "explode")
    (tmp_path / faults.FILE).write_text(json.dumps([{"at": "*", "do": "drop", "speed": 1}]))
    followed = FilePlan(tmp_path)
    for _ in range(2):  # not only the first time
        with pytest.raises(DataError, match="speed"):
            followed.take("GetKernel")


def test_every_kind_has_a_name():
    assert {fault.do for fault in NAMED.values()} == set(KINDS)


def test_every_fault_is_an_error_for_people_or_none(served, remote, tmp_path):
    """Whatever happens to a read, no raw exception comes out."""
    for fault in NAMED.values():
        plan(served, fault)
        with contextlib.suppress(KagflowError):
            remote.limits("tiny-squares")

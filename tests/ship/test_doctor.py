"""The Kaggle side of doctor: each finding against an answer that makes it, and its contrary."""

from __future__ import annotations

import importlib.metadata
import time
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path

import pytest

from kagflow.errors import AuthError
from kagflow.ship import assumptions, doctor, hours
from kagflow.ship.assumptions import Answer
from kagflow.ship.doctor import Greeting
from kagflow.ship.records import HoursRow, Records
from kagflow.ship.remote import Remote


def test_the_client_is_compared_with_what_is_declared(monkeypatch: pytest.MonkeyPatch) -> None:
    found = doctor.client_check()
    assert found.state == "ok"
    assert all(name in found.found for name in ("kaggle", "kagglesdk", "six"))
    real = importlib.metadata.version
    monkeypatch.setattr(
        importlib.metadata, "version", lambda name: "2.2.3" if name == "kaggle" else real(name)
    )
    found = doctor.client_check()
    assert found.state == "fail"
    assert "kaggle" in found.mend
    assert "2.2.4" in found.mend


def test_the_credential_is_named_and_never_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(AuthError):
        doctor.credential_check()
    secret = "KGAT_" + "5e" * 16
    monkeypatch.setenv("KAGGLE_API_TOKEN", secret)
    found = doctor.credential_check()
    assert found.state == "ok"
    assert "KAGGLE_API_TOKEN" in found.found
    assert secret not in repr(found)


@pytest.mark.parametrize(
    ("body", "shape"),
    [
        (b'{"error": {"code": 401, "message": "no"}}', "nested"),
        (b'{"code": 401, "message": "no"}', "flat"),
        (b"<html>no</html>", "html"),
    ],
)
def test_a_greeting_tells_clock_and_shape(script, remote: Remote, body: bytes, shape: str) -> None:
    ahead = format_datetime(datetime.now(UTC) + timedelta(seconds=300), usegmt=True)
    script.rpc("GetKernel", (401, {"Date": ahead}, body))
    greeting = doctor.greet(remote.transport)
    assert greeting is not None
    assert greeting.shape == shape
    (_, _, headers, _) = script.seen[-1]
    assert "Authorization" not in headers


def test_who_does_not_answer_is_given_up_soon(tmp_path: Path) -> None:
    dead = Remote("local", url="http://127.0.0.1:9", state=tmp_path)
    began = time.monotonic()
    assert doctor.greet(dead.transport) is None
    assert time.monotonic() - began < 10
    assert doctor.unreached(dead.source).state == "unknown"


@pytest.mark.parametrize(
    ("ahead", "state"), [(0.4, "ok"), (-100.0, "ok"), (130.0, "warn"), (-130.0, "warn")]
)
def test_a_clock_may_be_two_minutes_off(ahead: float, state: str) -> None:
    found = doctor.clock_check(Greeting(ahead, "nested"))
    assert found.state == state
    assert bool(found.mend) == (state == "warn")
    assert doctor.clock_check(Greeting(None, "nested")).state == "unknown"


def test_rules_and_quota_are_told(script, remote: Remote) -> None:
    script.rpc("GetCompetition", {"userHasEntered": True}, {"userHasEntered": False})
    assert doctor.rules_check(remote, "a").state == "ok"
    refused = doctor.rules_check(remote, "a")
    assert (refused.state, refused.code) == ("fail", 4)
    assert "/competitions/a/rules" in refused.mend
    quota = {"gpuQuota": {"timeUsed": "100000s", "totalTimeAllowed": "108000s"}}
    little = {"gpuQuota": {"timeUsed": "107000s", "totalTimeAllowed": "108000s"}}
    script.rpc("GetAcceleratorQuotaStatistics", quota, little, {})
    assert "2.2 of 30.0 GPU hours left" in doctor.quota_check(remote).found
    assert doctor.quota_check(remote).state == "warn"
    assert doctor.quota_check(remote).state == "unknown"


def test_what_was_contradicted_is_named(tmp_path: Path) -> None:
    assert "0 verified" in doctor.answers_check(tmp_path).found
    seen = [
        Answer("quota_lag_s", "verified", 1.0, "x"),
        Answer("internet_off", "contradicted", False, "open"),
    ]
    assumptions.note(tmp_path, seen)
    found = doctor.answers_check(tmp_path)
    assert found.state == "warn"
    assert "1 verified" in found.found
    assert "internet_off" in found.found


def test_runs_that_ended_a_moment_ago_are_summed(tmp_path: Path) -> None:
    records, now = Records(tmp_path), datetime.now(UTC)

    def stretch(minutes_ago: float, kind: str = "kernel", accelerator: str = "T4") -> None:
        at = (now - timedelta(minutes=minutes_ago)).isoformat()
        records.add(
            HoursRow("kaggle", "me", kind, "a", f"{minutes_ago}{kind}", "kaggle", accelerator, at,
                     ended=at, seconds=60.0)
        )  # fmt: skip

    for minutes, kind, accelerator in (
        (1, "kernel", "T4"),
        (30, "kernel", "T4"),
        (90, "kernel", "T4"),
        (1, "submission", "T4"),
        (2, "kernel", "None"),
    ):
        stretch(minutes, kind, accelerator)
    where = {"profile": "kaggle", "account": "me", "accelerator": "T4"}
    assert hours.ended_within(records, 3600.0, **where) == 120.0
    assert hours.ended_within(records, 120.0, **where) == 60.0

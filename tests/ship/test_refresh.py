"""What was detached from is asked about, and noted as `submit` would have noted it."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from kagflow.ship.records import HoursRow, Records, SubmissionRow
from kagflow.ship.refresh import refresh
from kagflow.ship.remote_types import KernelStatus, LogLine, Submission

AGO = (datetime.now(UTC) - timedelta(hours=30)).isoformat()


@dataclass
class Answers:
    """A Kaggle of scripted answers."""

    state: Path
    status: str = "RUNNING"
    message: str = ""
    log: tuple[LogLine, ...] = ()
    scored: Submission | None = None
    asked: list[str] = field(default_factory=list)

    def account(self) -> str:
        return "ann"

    def kernel_status(self, ref: str, version: int) -> KernelStatus:
        self.asked.append(f"{ref}/v{version}")
        return KernelStatus(self.status, self.message)

    def kernel_log(self, ref: str, version: int) -> tuple[LogLine, ...]:
        return self.log

    def submission(self, ref: int) -> Submission:
        assert self.scored is not None
        return self.scored


@pytest.fixture
def records(tmp_path: Path) -> Records:
    return Records(tmp_path / "records")


def sent(records: Records, **changes: Any) -> SubmissionRow:
    values = {"profile": "kaggle", "account": "ann", "competition": "steel", "pack": "abcd"}
    values |= {"kernel": "ann/k", "kernel_version": 2, "pushed_at": AGO, "intent_at": AGO}
    values |= {"accelerator": "NvidiaTeslaT4", "status": "running", "projected_p50": 20.0}
    return records.add(SubmissionRow(**{**values, **changes}))


def submission(**changes: Any) -> Submission:
    values = {"ref": 7, "status": "COMPLETE", "public": 0.91, "private": 0.9, "description": ""}
    return Submission(**{**values, "error": "", "at": None, **changes})


def submitted(records: Records, **changes: Any) -> SubmissionRow:
    return sent(
        records, ref=7, submitted_at=AGO, status="submitted", real_minutes=3.0,
        **{"detail": {"rerun": "hidden"}, **changes},
    )  # fmt: skip


def test_a_run_under_way_stays_as_it_is(records: Records, tmp_path: Path) -> None:
    row = sent(records)
    assert refresh(records, Answers(tmp_path), profile="kaggle") == [row]
    assert records.select(HoursRow) == []


def test_a_failed_run_is_noted_with_its_log_cause_and_hours(
    records: Records, tmp_path: Path
) -> None:
    sent(records)
    log = (LogLine(1.0, "stdout", "begin\n"), LogLine(360.0, "stderr", "CUDA out of memory\n"))
    (row,) = refresh(records, Answers(tmp_path, "ERROR", "died", log), profile="kaggle")
    assert (row.status, row.error, row.cause) == ("failed", "died", "out of memory")
    assert (row.detail or {})["log"][-1] == "CUDA out of memory"
    assert (row.real_minutes, row.gpu_hours) == (6.0, pytest.approx(0.1))
    (hours,) = records.select(HoursRow)
    assert hours.seconds == 360.0
    # It ended when its seconds were over, not when somebody looked a day later.
    assert str(hours.ended) < (datetime.now(UTC) - timedelta(hours=29)).isoformat()


def test_a_finished_run_keeps_its_hours_and_is_not_submitted(
    records: Records, tmp_path: Path
) -> None:
    sent(records)
    log = (LogLine(90.0, "stdout", "done\n"),)
    (row,) = refresh(records, Answers(tmp_path, "COMPLETE", "", log), profile="kaggle")
    assert (row.status, row.ref, row.real_minutes) == ("ran", None, 1.5)
    assert row.gpu_hours == pytest.approx(0.025)
    (hours,) = records.select(HoursRow)
    assert hours.seconds == 90.0


def test_a_score_that_came_is_noted_but_not_how_long_it_took(
    records: Records, tmp_path: Path
) -> None:
    submitted(records)
    answers = Answers(tmp_path, scored=submission())
    (row,) = refresh(records, answers, profile="kaggle")
    assert (row.status, row.public, row.private, row.real_minutes) == ("scored", 0.91, 0.9, None)
    # Three minutes of the saved version, and as careful a guess as the projection for the rerun.
    assert row.gpu_hours == pytest.approx((3 + 20) / 60)
    (hours,) = records.select(HoursRow)
    assert (hours.kind, hours.seconds, hours.source) == ("submission", 1200.0, "estimated")
    assert refresh(records, answers, profile="kaggle") == []


def test_without_a_rerun_the_saved_version_was_all(records: Records, tmp_path: Path) -> None:
    submitted(records, detail={"rerun": "none"})
    (row,) = refresh(records, Answers(tmp_path, scored=submission()), profile="kaggle")
    assert (row.real_minutes, row.gpu_hours) == (3.0, pytest.approx(0.05))
    (hours,) = records.select(HoursRow)
    assert hours.accelerator == ""


def test_a_failed_scoring_is_noted(records: Records, tmp_path: Path) -> None:
    submitted(records)
    failed = submission(status="ERROR", public=None, private=None, error="Notebook Timeout")
    (row,) = refresh(records, Answers(tmp_path, scored=failed), profile="kaggle")
    assert (row.status, row.error, row.cause) == ("failed", "Notebook Timeout", "out of time")
    assert row.gpu_hours == pytest.approx((3 + 20) / 60)


def test_what_waits_or_is_anothers_is_left_alone(records: Records, tmp_path: Path) -> None:
    waiting = submitted(records)
    sent(records, account="bob", pack="other")
    sent(records, kernel=None, kernel_version=None, pack="planned", status="planned")
    answers = Answers(tmp_path, scored=submission(status="PENDING", public=None))
    found = refresh(records, answers, profile="kaggle")
    assert [row.pack for row in found] == ["abcd", "planned"]
    assert found[0] == waiting
    assert answers.asked == []

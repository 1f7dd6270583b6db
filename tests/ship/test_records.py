"""The ledger and the history: nothing lost, nothing twice, weeks in UTC."""

from __future__ import annotations

import sqlite3
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kagflow import process, sqlite
from kagflow.errors import LocalError, UsageError
from kagflow.ship import counts, history, hours
from kagflow.ship.records import SCHEMA, HoursRow, Records, StepRow, SubmissionRow
from kagflow.ship.remote_types import Quota, QuotaView


@pytest.fixture
def records(tmp_path: Path) -> Records:
    return Records(tmp_path / "state")


def submission(**changes) -> SubmissionRow:
    values = {"profile": "local", "account": "ann", "competition": "steel", "pack": "abcd1234"}
    return SubmissionRow(**{**values, "intent_at": "2026-01-01", **changes})


def stretch(started: str, ended: str | None, **changes) -> HoursRow:
    values = {"profile": "kaggle", "account": "ann", "kind": "kernel", "competition": "steel"}
    values |= {"subject": "ann/k/v1", "place": "kaggle", "accelerator": "NvidiaTeslaT4"}
    return HoursRow(**{**values, "started": started, "ended": ended, **changes})


def test_a_row_comes_back_as_it_went_in(records: Records) -> None:
    row = records.add(submission(runs=("a/fold0", "b/fold1"), cv_naive=0.9, detail={"x": [1]}))
    (found,) = Records(records.path.parent).select(SubmissionRow)
    assert found == row
    assert found.runs == ("a/fold0", "b/fold1")
    assert found.detail == {"x": [1]}


def test_the_same_attempt_is_one_row(records: Records) -> None:
    first = records.add(submission(message="first"))
    assert records.add(submission(message="second")) == first
    assert records.add(submission(attempt=2)).id != first.id


def test_a_step_is_intended_once_and_keeps_its_result(records: Records) -> None:
    step = records.intend("submission:1", "kernel", {"ref": "ann/k"})
    assert step.result is None
    records.done(step, {"version": 3})
    again = records.intend("submission:1", "kernel", {"ref": "other"})
    assert (again.state, again.effect, again.result) == ("done", {"ref": "ann/k"}, {"version": 3})


def test_the_file_is_safe_by_its_settings(records: Records) -> None:
    with sqlite.opened(records.path) as db:
        assert db.execute("PRAGMA journal_mode").fetchone()[0] == "delete"
        assert db.execute("PRAGMA synchronous").fetchone()[0] == 2
        assert db.execute("PRAGMA user_version").fetchone()[0] == 2


def test_a_newer_file_is_left_alone(tmp_path: Path) -> None:
    records = Records(tmp_path)
    with sqlite3.connect(records.path) as db:
        db.execute("PRAGMA user_version = 99")
    with pytest.raises(LocalError, match="newer kagflow"):
        Records(tmp_path)


def test_a_file_of_the_first_version_keeps_its_rows(tmp_path: Path) -> None:
    file = tmp_path / "kagflow.sqlite3"
    old = SCHEMA.replace(
        "datasets TEXT NOT NULL DEFAULT '[]'", "dataset TEXT, dataset_version INTEGER"
    )
    with sqlite3.connect(file) as db:
        db.executescript(old)
        db.execute("PRAGMA user_version = 1")
        names = "profile, account, competition, pack, intent_at, status, dataset, dataset_version"
        db.executemany(
            f"INSERT INTO submissions ({names}) VALUES ('local', 'ann', 'steel', ?, '', ?, ?, ?)",
            [("a", "scored", "ann/steel-pack", 3), ("b", "planned", None, None)],
        )
    records = Records(tmp_path)
    rows = records.select(SubmissionRow)
    assert [row.datasets for row in rows] == [("ann/steel-pack/3",), ()]
    records.update(SubmissionRow, rows[1].id, datasets=("ann/e/1", "ann/w/2"))
    assert Records(tmp_path).select(SubmissionRow)[1].datasets == ("ann/e/1", "ann/w/2")


def test_two_processes_lose_nothing(tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path\n"
        "from kagflow.ship.records import Records, StepRow\n"
        "records = Records(Path(sys.argv[1]))\n"
        "for n in range(25):\n"
        "    records.intend('shared', str(n), {})\n"
        "    records.intend(sys.argv[2], str(n), {})\n"
    )
    children = [
        process.spawn([sys.executable, "-c", code, str(tmp_path), name]) for name in ("a", "b")
    ]
    assert [child.wait(timeout=60) for child in children] == [0, 0]
    assert len(Records(tmp_path).select(StepRow)) == 75


# -- history


SCORED = {"ref": 7, "status": "scored", "floor": 0.85887, "cv_naive": 0.91, "cv_images": 12568}


@pytest.mark.parametrize(
    ("changes", "boards"),
    [
        # Another sample of the same kind of images.
        ({"public": 0.85560, "private": 0.86010}, ["private", "public"]),
        ({"public": 0.85887}, ["public"]),
        ({"public": 0.85887, "cv_images": None}, ["public"]),
        ({"public": 0.85560, "cv_images": None}, []),
        ({"public": 0.90502, "private": 0.88883}, []),
        # Nearer to the CV: a competition in which nobody gains much.
        ({"public": 0.8615, "cv_naive": 0.862}, []),
        ({"public": 0.8615, "cv_naive": 0.91, "cv_crossfitted": 0.862}, []),
        ({"public": 0.85560, "floor": None}, []),
        ({}, []),
    ],
)
def test_a_score_without_any_prediction_is_flagged(
    records: Records, changes: dict, boards: list[str]
) -> None:
    row = records.add(submission(**{**SCORED, **changes}))
    assert sorted(history.at_floor(row)) == boards == history.as_dict(row)["at_floor"]
    told = [note for note in history.notes(row) if "without any prediction" in note]
    assert len(told) == bool(boards)
    for name in boards:
        assert f"{name} {changes[name]:.5f}" in told[0]


def test_what_a_hidden_rerun_shed_is_said_to_be_unknown(records: Records) -> None:
    hidden = submission(**SCORED, public=0.9, detail={"rerun_minutes": 3.0})
    saved = submission(**SCORED, public=0.9, attempt=2, detail={"rerun_minutes": None})
    open_ = submission(attempt=3, ref=9, status="submitted")
    told = [history.notes(records.add(row)) for row in (hidden, saved, open_)]
    assert told == [[history.UNSEEN], [], []]


def test_history_finds_by_number_and_by_pack(records: Records) -> None:
    records.add(submission(ref=7, status="scored"))
    records.add(submission(pack="abff0000", ref=8, status="running"))
    assert history.find(records, "7", profile="local").pack == "abcd1234"
    assert history.find(records, "abf", profile="local").ref == 8
    assert [row.ref for row in history.pending(records, profile="local")] == [8]
    assert history.history(records, profile="kaggle") == []
    with pytest.raises(UsageError, match="several packs"):
        history.find(records, "ab", profile="local")
    with pytest.raises(UsageError, match="no submission 'zz'"):
        history.find(records, "zz", profile="local")


# -- hours

MOMENTS = st.datetimes(
    min_value=datetime(2020, 1, 1),  # noqa: DTZ001 -- the zone is drawn beside it
    max_value=datetime(2040, 1, 1),  # noqa: DTZ001
    timezones=st.timezones(),
)


@given(MOMENTS)
def test_a_week_holds_its_moment_and_starts_on_saturday(at: datetime) -> None:
    start = hours.week_start(at)
    assert start <= at < start + timedelta(hours=168)
    assert (start.weekday(), start.hour, start.utcoffset()) == (5, 0, timedelta(0))


@given(MOMENTS, MOMENTS)
def test_the_servers_refresh_moves_the_week(at: datetime, refresh: datetime) -> None:
    start = hours.week_start(at, refresh)
    assert start <= at < start + timedelta(hours=168)
    assert (refresh - start) % timedelta(hours=168) == timedelta(0)


def test_a_change_of_clocks_does_not_move_the_week() -> None:
    zone = ZoneInfo("Europe/Berlin")
    before = datetime(2026, 3, 28, 1, 30, tzinfo=zone)
    after = datetime(2026, 3, 29, 3, 30, tzinfo=zone)
    assert hours.week_start(before).isoformat() == "2026-03-28T00:00:00+00:00"
    assert hours.week_start(after) == hours.week_start(before)


def test_hours_are_split_at_the_edge_of_the_week(records: Records) -> None:
    # Saturday is 2026-11-21; one hour of the three lies before it.
    row = stretch("2026-11-20T23:00:00+00:00", "2026-11-21T02:00:00+00:00", seconds=10800.0)
    records.add(row)
    records.add(stretch("2026-11-22T00:00:00+00:00", None, subject="open"))
    records.add(stretch("2026-11-22T00:00:00+00:00", None, subject="home", place="local"))
    at = datetime(2026, 11, 22, 0, 30, tzinfo=UTC)
    week = hours.hours_this_week(records, profile="kaggle", at=at)
    assert week.by_kind == {"kernel": pytest.approx(7200.0 + 1800.0)}
    assert week.open == 1
    earlier = hours.hours_this_week(records, profile="kaggle", at=at - timedelta(days=7))
    assert earlier.seconds == 0.0
    last = hours.hours_this_week(
        records, profile="kaggle", at=datetime(2026, 11, 20, 23, 59, tzinfo=UTC)
    )
    assert last.seconds == pytest.approx(3540.0)


@given(st.lists(st.tuples(st.integers(0, 300), st.integers(1, 100)), max_size=8))
def test_windows_add_up_to_the_whole(spans: list[tuple[int, int]]) -> None:
    zero = datetime(2026, 11, 7, tzinfo=UTC)
    rows = [
        stretch(
            (zero + timedelta(hours=start)).isoformat(),
            (zero + timedelta(hours=start + length)).isoformat(),
            seconds=length * 3600.0,
        )
        for start, length in spans
    ]
    weeks = [zero + hours.WEEK * n for n in range(3)]
    total = sum(hours.in_window(rows, week, week + hours.WEEK).seconds for week in weeks)
    assert total == pytest.approx(sum(length for _, length in spans) * 3600.0)


def test_a_stretch_ends_once(records: Records) -> None:
    row = hours.begin(records, stretch("2026-11-22T00:00:00+00:00", None))
    assert hours.begin(records, stretch("2026-11-22T00:00:00+00:00", None)) == row
    ended = hours.end(records, row, seconds=60.0)
    assert hours.end(records, ended, seconds=99.0) == ended
    assert hours.spent(records, profile="kaggle", competition="steel") == {"kernel": 60.0}


def test_the_servers_quota_is_kept(records: Records) -> None:
    view = QuotaView(Quota(3600, 60, 108000, 108000), None, datetime(2026, 11, 28, tzinfo=UTC))
    (row,) = counts.snapshot(records, view, profile="kaggle", account="ann")
    assert (row.accelerator, row.used, row.source) == ("gpu", 3600.0, "server")
    assert row.refresh == "2026-11-28T00:00:00+00:00"

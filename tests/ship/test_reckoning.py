"""The week's hours: Kaggle's count against the ledger, in any zone and under any clock."""

from __future__ import annotations

import os
import time
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from kagflow.ship import counts, hours
from kagflow.ship.counts import Count, live_count
from kagflow.ship.hours import WEEK, window, window_until
from kagflow.ship.ledger_lines import Terms, lines_of_others
from kagflow.ship.reckoning import reckon
from kagflow.ship.records import HoursRow, QuotaRow, Records, SubmissionRow
from kagflow.ship.remote_transport import clock_ahead
from kagflow.ship.remote_types import Quota, QuotaView

HOUR = 3600.0
SATURDAY = datetime(2026, 11, 21, tzinfo=UTC)
NOW = SATURDAY + timedelta(days=3)
GPU = "NvidiaTeslaT4"
MOMENTS = st.datetimes(
    min_value=datetime(2020, 1, 1),  # noqa: DTZ001 -- the zone is drawn beside it
    max_value=datetime(2040, 1, 1),  # noqa: DTZ001
    timezones=st.timezones(),
)


# A busy machine reads zones slowly.
UNTIMED = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])


def at(hour: float) -> datetime:
    return SATURDAY + timedelta(hours=hour)


def stretch(start: float, length: float | None, **changes) -> HoursRow:
    """`start` and `length` in hours of the week; no length: it still runs."""
    ended = None if length is None else at(start + length).isoformat()
    values = {"profile": "kaggle", "account": "ann", "kind": "kernel", "competition": "steel"}
    values |= {"subject": f"ann/k/v{start}", "place": "kaggle", "accelerator": GPU}
    values |= {"seconds": None if length is None else length * HOUR}
    return HoursRow(**{**values, "started": at(start).isoformat(), "ended": ended, **changes})


class Memory:
    """Records that answer from lists: a file for every drawn case would take seconds."""

    def __init__(self, *rows) -> None:
        self.rows = rows

    def select(self, kind, **where):
        return [
            row
            for row in self.rows
            if type(row) is kind
            and all(getattr(row, name) == value for name, value in where.items())
        ]


def week_of(*rows, used: float | None = None, now: datetime = NOW, **changes):
    count = None
    if used is not None:
        count = Count(used * HOUR, 0.0, 30 * HOUR, now, "server", live=True)
    settings = {"profile": "kaggle", "account": "ann", "window": window_until(SATURDAY + WEEK)}
    settings |= {"count": count, "terms": Terms(), "at": now}
    return reckon(Memory(*rows), **{**settings, **changes})


def test_what_kaggle_counts_beyond_the_ledger_was_elsewhere() -> None:
    found = week_of(stretch(1, 2.0), stretch(5, 1.0, kind="train", subject="lite/fold0"), used=4.5)
    assert found.explained.least == found.explained.most == 3 * HOUR
    assert found.elsewhere is not None
    assert found.elsewhere.least == found.elsewhere.most == 1.5 * HOUR
    assert found.drifts
    assert found.drift == 1.5 * HOUR
    assert found.left == 25.5 * HOUR
    assert {line.what: line.seconds.most for line in found.lines} == {
        "ann/k/v1": 2 * HOUR,
        "lite/fold0": HOUR,
    }


def test_a_ledger_beyond_kaggles_count_drifts_the_other_way() -> None:
    found = week_of(stretch(1, 2.0), used=1.8)
    assert found.drift == pytest.approx(-0.2 * HOUR)
    assert found.drifts
    assert not week_of(stretch(1, 2.0), used=1.95).drifts


def test_an_unknown_billing_of_reruns_is_a_range() -> None:
    sent = SubmissionRow("kaggle", "ann", "steel", "abcd", kernel="ann/k", kernel_version=1, ref=7)
    rows = (sent, stretch(1, 0.5, subject="ann/k/v1"),
            stretch(2, 1.0, kind="submission", subject="7"))  # fmt: skip
    unknown = week_of(*rows, used=1.0)
    (line,) = unknown.lines
    assert (line.what, line.seconds.least, line.seconds.most) == ("submission 7", 1800, 5400)
    assert unknown.elsewhere is not None
    assert (unknown.elsewhere.least, unknown.elsewhere.most) == (0.0, 1800)
    assert not unknown.drifts
    billed = week_of(*rows, used=1.5, terms=Terms(billed=True))
    assert billed.explained.least == billed.explained.most == 1.5 * HOUR
    free = week_of(*rows, used=0.5, terms=Terms(billed=False))
    assert free.explained.most == 0.5 * HOUR
    assert free.drift == billed.drift == 0.0


def test_a_run_that_just_ended_may_not_show_yet() -> None:
    late = stretch(71.5, 0.4)
    found = week_of(late, used=0.0, terms=Terms(lag_s=HOUR))
    assert not found.drifts
    assert (found.used.least, found.used.most) == (0.0, pytest.approx(0.4 * HOUR))
    assert found.left == pytest.approx(29.6 * HOUR)
    assert week_of(late, used=0.0).drift == pytest.approx(-0.4 * HOUR)


def test_what_runs_is_reserved_by_kaggle_and_forecast_without_it() -> None:
    running = stretch(71, None, forecast_seconds=2 * HOUR)
    live = week_of(running, used=3.0)
    assert (live.used.most, live.reserved) == (3 * HOUR, 0.0)
    offline = week_of(running)
    assert offline.used.most == HOUR
    assert offline.reserved == HOUR
    assert offline.lines[0].running


def test_a_stretch_left_open_by_a_kill_ends_with_the_longest_run() -> None:
    assert week_of(stretch(1, None)).used.most == 12 * HOUR
    assert week_of(stretch(1, None, forecast_seconds=HOUR)).reserved == 0.0


def test_an_anchor_goes_on_with_the_ledger() -> None:
    rows = (stretch(1, 2.0), stretch(30, 1.0))
    anchor = Count(10 * HOUR, 0.0, 30 * HOUR, at(20), "user")
    found = week_of(*rows, count=anchor)
    assert (found.used.least, found.used.most) == (11 * HOUR, 11 * HOUR)
    assert found.elsewhere is not None
    assert found.elsewhere.most == 8 * HOUR
    across = week_of(stretch(19.5, 1.0), count=anchor)
    assert (across.used.least, across.used.most) == (10.5 * HOUR, 11 * HOUR)


def test_an_anchor_of_last_week_says_only_what_is_allowed() -> None:
    anchor = Count(10 * HOUR, 0.0, 30 * HOUR, SATURDAY - timedelta(hours=1), "user")
    found = week_of(stretch(1, 2.0), count=anchor)
    assert found.count is None
    assert found.elsewhere is None
    assert (found.used.most, found.left) == (2 * HOUR, 28 * HOUR)
    assert week_of(stretch(1, 2.0)).left is None


def test_only_the_same_account_accelerator_and_place_count() -> None:
    others = (
        stretch(1, 2.0, account="bob"),
        stretch(1, 2.0, accelerator="None"),
        stretch(1, 2.0, accelerator="TpuV5E8"),
        stretch(1, 2.0, place="local", accelerator="cuda:0"),
    )
    assert week_of(*others).used.most == 0.0
    assert week_of(*others, accelerator="tpu").used.most == 2 * HOUR
    (line,) = lines_of_others(
        Memory(*others), profile="kaggle", window=window_until(SATURDAY + WEEK), at=NOW
    )
    assert (line.place, line.seconds.most) == ("local", 2 * HOUR)


def test_counts_are_kept_and_the_allowance_outlives_an_anchor(tmp_path: Path) -> None:
    records = Records(tmp_path)
    assert counts.last_account(records, profile="kaggle") == ""
    refresh = SATURDAY + WEEK
    view = QuotaView(Quota(3600, 60, 108000, 108000), None, refresh)
    counts.snapshot(records, view, profile="kaggle", account="ann")
    time.sleep(0.002)
    counts.enter(records, profile="kaggle", account="ann", used=7200.0, total=None)
    last, known = counts.last_count(records, profile="kaggle", account="ann", accelerator="gpu")
    assert last is not None
    assert (last.used, last.total, last.source) == (7200.0, 108000, "user")
    assert known == refresh
    assert counts.last_account(records, profile="kaggle") == "ann"
    (entered,) = records.select(QuotaRow, source="user")
    assert entered.total == 0.0


# -- weeks

SKEWS = st.timedeltas(min_value=timedelta(hours=-48), max_value=timedelta(hours=48))


@UNTIMED
@given(MOMENTS, SKEWS)
def test_a_named_refresh_ends_the_week_whatever_the_local_clock_says(
    refresh: datetime, skew: timedelta
) -> None:
    found = window_until(refresh)
    # In UTC, as an hour that summer time skips equals nothing of another zone (PEP 495).
    assert found.end == refresh.astimezone(UTC)
    assert found.end - found.start == timedelta(hours=168)
    start, end = found.here(skew)
    assert end - start == timedelta(hours=168)
    # A run that Kaggle saw inside the week is inside by the skewed clock that noted it.
    ran = found.start + timedelta(hours=1)
    assert start <= ran.astimezone(UTC) - skew < end


@UNTIMED
@given(SKEWS, st.integers(0, 166), st.integers(1, 120))
def test_hours_do_not_depend_on_the_local_clock(skew: timedelta, start: int, minutes: int) -> None:
    """The ledger's times are all off by the same skew, which the server's date tells."""
    length = minutes / 60
    true = stretch(start, length)
    off = replace(
        true,
        started=(hours.moment(true.started) - skew).isoformat(),
        ended=(hours.moment(str(true.ended)) - skew).isoformat(),
    )
    now = at(167.9)
    seen = week_of(true, used=5.0, now=now)
    told = week_of(off, used=5.0, now=now - skew, terms=Terms(ahead=skew))
    assert told.explained == seen.explained
    assert told.left == seen.left


@UNTIMED
@given(MOMENTS, MOMENTS, st.integers(0, 6))
def test_a_believed_week_holds_its_moment(
    moment: datetime, refresh: datetime, weekday: int
) -> None:
    for one in (window(moment, refresh), window(moment, weekday=weekday)):
        assert one.start <= moment < one.end
        assert one.end - one.start == timedelta(hours=168)
        assert one.start.utcoffset() == timedelta(0)
    assert window(moment, weekday=weekday).start.weekday() == weekday
    assert window(moment, refresh).sure


ZONES = ("UTC", "Europe/Berlin", "America/New_York", "Asia/Kolkata", "Australia/Lord_Howe")


@pytest.mark.parametrize("zone", ZONES)
def test_the_machines_zone_and_its_summer_time_change_nothing(
    zone: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both changes of 2026, in each zone; Lord Howe changes by half an hour."""
    monkeypatch.setenv("TZ", zone)
    time.tzset()
    try:
        for day in (datetime(2026, 3, 29, 1, tzinfo=UTC), datetime(2026, 10, 25, 1, tzinfo=UTC)):
            for hour in range(-48, 48):
                moment = (day + timedelta(hours=hour)).astimezone()
                found = window(moment)
                assert (found.start.weekday(), found.start.hour) == (5, 0)
                assert found.start <= moment < found.end
    finally:
        del os.environ["TZ"]
        time.tzset()


COUNTED = st.floats(0, 30)
SPANS = st.lists(
    st.tuples(
        st.floats(-10, 70),
        st.floats(0.01, 12),
        st.sampled_from(["kernel", "submission", "train"]),
    ),
    max_size=6,
)


@UNTIMED
@given(SPANS, COUNTED, st.sampled_from([None, True, False]), st.floats(0, 7200))
def test_the_parts_of_a_count_add_up(spans, used: float, billed: bool | None, lag: float) -> None:
    rows = [stretch(start, length, kind=kind, subject=str(n)) for n, (start, length, kind)
            in enumerate(spans)]  # fmt: skip
    found = week_of(*rows, used=used, terms=Terms(billed=billed, lag_s=lag))
    assert found.elsewhere is not None
    assert found.explained.least <= found.explained.most + 1e-6
    assert found.used.least <= found.used.most
    assert found.used.least == used * HOUR
    # Whatever is explained, the rest of the count is elsewhere, and only then drifts upwards.
    sure = min(found.explained.most, used * HOUR) + found.elsewhere.least
    assert sure == pytest.approx(used * HOUR)
    assert max(found.drift, 0.0) == pytest.approx(found.elsewhere.least)
    lines = sum(line.seconds.most for line in found.lines)
    assert lines == pytest.approx(
        hours.in_window(
            [row for row in rows if billed is not False or row.kind != "submission"],
            SATURDAY,
            NOW,
        ).seconds
    )


def test_the_servers_date_tells_how_far_its_clock_is_ahead(monkeypatch: pytest.MonkeyPatch) -> None:
    moment = at(50).timestamp()
    monkeypatch.setattr(time, "time", lambda: moment + 2)
    date = format_datetime(at(50) + timedelta(hours=2), usegmt=True)
    assert clock_ahead(date, moment) == 7199.0
    assert clock_ahead("", moment) is None
    assert clock_ahead("yesterday", moment) is None


def test_a_live_count_is_what_kaggle_said() -> None:
    assert live_count(Quota(1.0, 2.0, 3.0, 4.0), NOW) == Count(1.0, 2.0, 3.0, NOW, "server", True)

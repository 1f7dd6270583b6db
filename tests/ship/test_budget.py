"""Nothing is pushed beyond the hours that are left, unless a person says so."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kagflow.errors import RemoteError
from kagflow.ship.budget import MARGIN, Action, Cpu, Judgement, require, submission_cost

HOUR = 3600.0
REFRESH = datetime(2026, 11, 28, tzinfo=UTC)


def judged(*spans: float, left: float | None, cpu: Cpu | None = None) -> Judgement:
    actions = tuple(Action(f"fold {n}", span * HOUR, span * HOUR) for n, span in enumerate(spans))
    return Judgement(actions, None if left is None else left * HOUR, REFRESH, cpu)


def test_a_forecast_must_fit_with_a_fifth_more() -> None:
    assert judged(5.0, 5.0, left=12.0).fits
    tight = judged(5.0, 5.0, left=11.9)
    assert not tight.fits
    assert [one.name for one in tight.fitting] == ["fold 0"]


def test_the_refusal_says_what_would_fit_and_the_ways_on() -> None:
    cpu = Cpu(40.0, 60.0, "kagflow submit --cpu")
    refused = judged(2.0, 2.0, 2.0, left=5.0, cpu=cpu)
    with pytest.raises(RemoteError) as caught:
        require(refused)
    assert caught.value.exit_code == 4
    assert "does not fit: 6.00 h are forecast, 7.20 h with a fifth more" in caught.value.message
    assert "5.00 h are left before Sat 28 Nov 00:00 UTC" in caught.value.message
    hint = caught.value.hint
    assert "fold 0 and fold 1 fit before Sat 28 Nov 00:00 UTC" in hint
    assert "submit --cpu takes 0 accelerator hours: on a CPU, 40 min of the 60 allowed" in hint
    assert hint.endswith("wait until Sat 28 Nov 00:00 UTC, or go on with --over-quota")
    require(refused, over_quota=True)


def test_a_cpu_that_is_too_slow_is_not_offered() -> None:
    slow = judged(2.0, left=1.0, cpu=Cpu(61.0, 60.0, "kagflow submit --cpu"))
    with pytest.raises(RemoteError) as caught:
        require(slow)
    assert "--cpu" not in caught.value.hint


def test_what_costs_nothing_or_cannot_be_known_passes() -> None:
    require(judged(0.0, left=0.0))
    unknown = judged(2.0, left=None)
    require(unknown)
    assert "not known" in unknown.describe()
    assert judged(0.0, left=0.0).describe() == "costs no accelerator hours"
    assert unknown.to_dict()["left_hours"] is None


@pytest.mark.parametrize(
    ("rerun", "billed", "save_s", "expected"),
    [
        ("none", None, 60.0, (600.0, 600.0)),
        ("hidden", None, 60.0, (60.0, 660.0)),
        ("hidden", True, 60.0, (660.0, 660.0)),
        ("hidden", False, 60.0, (60.0, 60.0)),
        ("hidden", False, None, (600.0, 600.0)),
        ("unknown", None, 60.0, (600.0, 1200.0)),
    ],
)
def test_a_submission_costs_its_save_and_perhaps_its_rerun(
    rerun: str, billed: bool | None, save_s: float, expected: tuple[float, float]
) -> None:
    found = submission_cost(600.0, save_s=save_s, rerun=rerun, billed=billed, limit_s=3600.0)
    assert (found.least, found.most) == expected


def test_no_run_costs_more_than_its_limit() -> None:
    found = submission_cost(9000.0, save_s=None, rerun="unknown", billed=True, limit_s=3600.0)
    assert (found.least, found.most) == (7200.0, 7200.0)


@settings(deadline=None)
@given(st.lists(st.floats(0, 12), min_size=1, max_size=8), st.floats(0, 30))
def test_what_is_said_to_fit_fits(spans: list[float], left: float) -> None:
    found = judged(*spans, left=left)
    total = MARGIN * sum(one.most for one in found.fitting)
    assert total <= left * HOUR
    if found.fits:
        assert found.fitting == found.actions

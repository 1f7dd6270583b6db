"""The line from CV to public score, and what lies off it."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kagflow.ship.cvlb import fit
from kagflow.ship.records import SubmissionRow


def row(n: int, cv: float | None, public: float | None, **changes) -> SubmissionRow:
    values = {"profile": "kaggle", "account": "ann", "competition": "steel", "pack": f"p{n}"}
    values |= {"ref": n, "status": "scored", "cv_crossfitted": cv, "public": public}
    return SubmissionRow(**{**values, **changes})


def test_an_odd_submission_is_off_the_line_and_does_not_move_it() -> None:
    rows = [row(n, 0.88 + n / 200, 0.87 + n / 200 + (-1) ** n * 1e-4) for n in range(7)]
    odd = row(7, 0.89, 0.92)
    found = fit([*rows, odd])
    assert found is not None
    assert found.slope == pytest.approx(1.0, abs=0.05)
    assert [one.ref for one in found.outliers] == [7]
    assert found.outliers[0].residual == pytest.approx(0.04, abs=0.002)
    assert found.to_dict()["outliers"][0]["ref"] == 7


def test_too_few_or_equal_scores_make_no_line() -> None:
    assert fit([row(1, 0.88, 0.87), row(2, 0.89, 0.88)]) is None
    assert fit([row(n, 0.88, 0.87) for n in range(5)]) is None


def test_nobody_is_odd_among_four() -> None:
    rows = [row(n, 0.88 + n / 100, 0.87 + n / 100) for n in range(3)]
    found = fit([*rows, row(4, 0.885, 0.99)])
    assert found is not None
    assert found.outliers == ()


def test_only_scored_packs_count_each_once_and_naive_stands_in() -> None:
    rows = [
        row(1, 0.88, 0.87),
        row(2, None, 0.88, cv_naive=0.89),
        row(3, 0.90, 0.89),
        row(4, 0.90, 0.89, pack="p3"),
        row(5, 0.95, None),
        row(6, None, 0.9),
        row(7, 0.5, 0.5, status="failed"),
    ]
    found = fit(rows)
    assert found is not None
    assert [(one.ref, one.cv) for one in found.points] == [(1, 0.88), (2, 0.89), (4, 0.90)]
    assert found.intercept == pytest.approx(-0.01)


@settings(deadline=None)
@given(
    st.floats(0.2, 2.0),
    st.floats(-0.5, 0.5),
    st.sets(st.integers(0, 1000), min_size=5, max_size=12),
)
def test_a_clean_line_is_found(slope: float, intercept: float, cvs: set[int]) -> None:
    found = fit(row(n, n / 1000, intercept + slope * n / 1000) for n in cvs)
    assert found is not None
    assert found.slope == pytest.approx(slope)
    assert found.intercept == pytest.approx(intercept)
    assert found.outliers == ()

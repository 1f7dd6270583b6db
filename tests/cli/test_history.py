"""Submissions as a person reads them: the list, the line, and one that failed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from kagflow.cli.app import main
from kagflow.ship.records import Records, SubmissionRow

AT = "2026-11-25T10:00:00.000+00:00"


@pytest.fixture
def records(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Records:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("KAGFLOW_HOME", str(tmp_path / "state"))
    return Records(tmp_path / "state")


@pytest.fixture
def kagflow(records: Records, capsys: pytest.CaptureFixture[str]) -> Any:
    def run(*words: str) -> tuple[str, str]:
        with pytest.raises(SystemExit) as stopped:
            main(list(words))
        out, err = capsys.readouterr()
        assert (stopped.value.code or 0) == 0, err
        return out, err

    return run


def sent(records: Records, n: int, **changes: Any) -> SubmissionRow:
    values = {"profile": "kaggle", "account": "ann", "competition": "steel", "pack": f"{n}" * 16}
    values |= {"ref": n, "status": "scored", "intent_at": AT, "runs": ("lite/fold0", "lite/fold1")}
    values |= {"cv_naive": 0.9 + n / 1000, "public": 0.89 + n / 1000, "projected_p50": 12.34}
    values |= {"real_minutes": 11.1, "gpu_hours": 0.25, "cv_crossfitted": 0.89 + n / 1000}
    return records.add(SubmissionRow(**{**values, **changes}))


def test_the_list_has_minutes_hours_both_cvs_and_the_line(kagflow: Any, records: Records) -> None:
    for n in range(1, 6):
        sent(records, n)
    sent(records, 6, public=0.5)
    text, _ = kagflow("history")
    row = next(line for line in text.splitlines() if "11111111" in line)
    for cell in ("lite 0,1", "0.8910", "0.9010", "12.3", "11.1", "0.25", "scored"):
        assert cell in row
    assert "steel: public = 0.0000 + 1.000 x CV (Theil-Sen, 6 submissions" in text
    assert "off the line: submission 6, public 0.50000 is -0.39600" in text
    told = json.loads(kagflow("--json", "history")[0])
    assert [one["ref"] for one in told["lines"]["steel"]["outliers"]] == [6]


def test_a_narrow_terminal_shows_the_list_as_two_tables(
    kagflow: Any, records: Records, monkeypatch: pytest.MonkeyPatch
) -> None:
    for n in range(1, 3):
        sent(records, n, public=0.89123, private=0.88456)
    assert kagflow("history")[0].count("11111111") == 1
    monkeypatch.setenv("COLUMNS", "80")
    text, _ = kagflow("history")
    first, second = (line for line in text.splitlines() if "11111111" in line)
    for cell in ("lite 0,1", "2026-11-25", "0.89123", "0.88456", "scored"):
        assert cell in first
    for cell in ("0.8910", "0.9010", "12.3", "11.1", "0.25"):
        assert cell in second
    assert max(map(len, text.splitlines())) <= 80


def test_what_is_not_known_of_one_is_left_out(kagflow: Any, records: Records) -> None:
    sent(records, 1, cv_crossfitted=None, cv_images=120, cv_label="one fold", floor=0.5)
    text, _ = kagflow("history", "1")
    assert "naive 0.9010, all-empty 0.5000, on 120 images (one fold)" in text
    assert "cross-fitted" not in text
    sent(records, 2, cv_images=120, cv_label="x")
    assert "cross-fitted 0.8920, naive 0.9020, on 120 images (x)" in kagflow("history", "2")[0]


def test_a_failed_one_is_explained(kagflow: Any, records: Records) -> None:
    log = ["begin", "ModuleNotFoundError: No module named 'timm'"]
    sent(records, 7, status="failed", public=None, error="ERROR", detail={"log": log})
    text, err = kagflow("history", "7")
    assert "likely: a module is missing, by: ModuleNotFoundError" in err
    assert "check: in the rehearsal, the sandbox" in err
    assert "| begin" in err
    assert "cross-fitted 0.8970, naive 0.9070" in text
    told = json.loads(kagflow("--json", "history", "7")[0])
    assert told["pack"] == "7" * 16
    assert told["explained"]["likely"].startswith("a module is missing")
    assert "kagflow submit steel --again" in told["explained"]["next"]


def test_a_kernel_that_was_never_submitted_is_simply_tried_anew(
    kagflow: Any, records: Records
) -> None:
    sent(records, 7, ref=None, status="failed", public=None, error="ERROR", real_minutes=None)
    text, err = kagflow("history", "7777")
    assert "minutes" in text
    assert "12.3 projected" in text
    assert " real" not in text
    assert err.rstrip().endswith("mend it, then kagflow submit steel")


def test_what_is_pending_says_why_nobody_could_be_asked(kagflow: Any, records: Records) -> None:
    sent(records, 8, status="submitted", public=None)
    text, err = kagflow("history")
    assert "what is pending was not asked about: no Kaggle credential" in err
    assert "submitted" in text
    told = json.loads(kagflow("--json", "history", "8")[0])
    assert (
        told["explained"]["next"]
        == "kagflow submit steel continues it, unless the pack changed since"
    )


def test_what_comes_next_submits_as_it_was_submitted(kagflow: Any, records: Records) -> None:
    sent(records, 8, status="running", ref=None, ensemble="two best", accelerator="None",
         kernel="ann/kagflow-steel-notebook", kernel_version=3)  # fmt: skip
    as_it_was = "kagflow submit steel --ensemble 'two best' --cpu --notebook"
    told = json.loads(kagflow("--json", "history", "8888")[0])
    assert told["explained"]["next"] == f"{as_it_was} continues it, unless the pack changed since"
    sent(records, 9, status="failed", ensemble="default", kernel="ann/kagflow-steel",
         kernel_version=4, accelerator="NvidiaTeslaT4")  # fmt: skip
    told = json.loads(kagflow("--json", "history", "9")[0])
    assert told["explained"]["next"].startswith("kagflow submit steel --dry-run --full, mend it, ")
    assert "then kagflow submit steel --again (" in told["explained"]["next"]


def test_nothing_submitted_names_the_next_command(kagflow: Any) -> None:
    text, _ = kagflow("history")
    assert "next: kagflow submit --dry-run" in text

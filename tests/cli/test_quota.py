"""The week's hours without an account: the ledger and what a person entered."""

from __future__ import annotations

import json
import re
import time
from pathlib import Path
from typing import Any

import pytest

from kagflow.cli.app import main
from kagflow.ship.records import HoursRow, Records, now


@pytest.fixture
def kagflow(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Any:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("KAGFLOW_HOME", str(tmp_path / "state"))

    def run(*words: str, code: int = 0) -> tuple[str, str]:
        with pytest.raises(SystemExit) as stopped:
            main(list(words))
        out, err = capsys.readouterr()
        assert (stopped.value.code or 0) == code, err
        return out, err

    return run


def value(told: tuple[str, str]) -> dict[str, Any]:
    return dict(json.loads(told[0]))


def test_without_an_account_the_ledger_answers(kagflow: Any, tmp_path: Path) -> None:
    row = HoursRow("kaggle", "", "kernel", "steel", "ann/k/v1", "kaggle", "NvidiaTeslaT4",
                   now(), ended=now(), seconds=1800.0)  # fmt: skip
    Records(tmp_path / "state").add(row)
    told = value(kagflow("--json", "quota"))
    (gpu,) = told["weeks"]
    assert "no Kaggle credential" in told["not_asked"]
    assert (gpu["source"], gpu["used"]["most"], gpu["left"]) == ("ledger", 0.5, None)
    assert not gpu["week"]["told_by_kaggle"]
    text, _ = kagflow("quota")
    assert "Kaggle was not asked: no Kaggle credential" in text
    assert "ann/k/v1" in text


def test_what_a_person_entered_is_the_anchor(kagflow: Any) -> None:
    (gpu,) = value(kagflow("--json", "quota", "--used", "12.5", "--allowed", "30"))["weeks"]
    assert (gpu["source"], gpu["used"]["most"], gpu["left"]) == ("user", 12.5, 17.5)
    assert gpu["elsewhere"] == {"least": 12.5, "most": 12.5}
    later, _ = kagflow("quota")
    assert "the 12.50 h that you entered on" in later
    assert "drift: the count entered holds 12.50 GPU h" in later
    (again,) = value(kagflow("--json", "quota", "--used", "13"))["weeks"]
    assert (again["used"]["most"], again["allowed"]) == (13.0, 30.0)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--allowed", "30"], "--allowed comes with --used"),
        (["--used", "-1"], "between 0 and 168"),
        (["--used", "1", "--allowed", "0"], "between 0 and 168"),
    ],
)
def test_hours_that_cannot_be_are_refused(kagflow: Any, words: list[str], message: str) -> None:
    _, err = kagflow("quota", *words, code=2)
    assert message in err


def test_the_bar_is_letters_off_a_terminal(kagflow: Any) -> None:
    text, _ = kagflow("quota", "--used", "15", "--allowed", "30")
    (bar,) = [line for line in text.splitlines() if line.startswith("  [")]
    assert bar.strip() == "[" + "~" * 30 + "." * 30 + "]"


@pytest.mark.parametrize("zone", ["UTC", "Asia/Kolkata"])
def test_the_refresh_is_told_once_where_the_zone_is_utc(
    kagflow: Any, monkeypatch: pytest.MonkeyPatch, zone: str
) -> None:
    monkeypatch.setenv("TZ", zone)
    time.tzset()
    try:
        text, _ = kagflow("quota", "--used", "15", "--allowed", "30")
    finally:
        monkeypatch.undo()
        time.tzset()
    (line,) = [line for line in text.splitlines() if line.startswith("refresh: ")]
    there = r"Sat \d\d \w{3} 00:00 UTC"
    here = "" if zone == "UTC" else r"Sat \d\d \w{3} 05:30 IST, "
    assert re.match(f"refresh: {here}{there}, in ", line), line

"""kagflow doctor as typed: one line each, a mend for each failure, and the first contact."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest

from kagflow import machine, process
from kagflow.cli import doctor
from kagflow.cli.app import main
from kagflow.machine import Check
from kagflow.rehearse import sandbox, server
from kagflow.ship.doctor_steps import STEPS

SHAPES = Path(__file__).parents[1] / "competitions" / "shapes"


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    shutil.copytree(
        SHAPES, tmp_path / "competitions" / "shapes", ignore=shutil.ignore_patterns("__pycache__")
    )
    monkeypatch.chdir(tmp_path)
    yield tmp_path
    server.stop(tmp_path / ".kagflow" / "local" / "kaggle")


@pytest.fixture
def kagflow(root: Path, capsys: pytest.CaptureFixture[str]) -> Any:
    def run(*words: str, code: int = 0, profile: str = "local") -> Any:
        with pytest.raises(SystemExit) as stopped:
            main(["--json", "--profile", profile, *words])
        out, err = capsys.readouterr()
        assert (stopped.value.code or 0) == code, err
        return json.loads(out)

    return run


def names(told: Any, state: str) -> set[str]:
    return {one["name"] for one in told["checks"] if one["state"] == state}


def test_without_an_account_it_says_what_it_could_not_look_at(kagflow: Any) -> None:
    told = kagflow("doctor", profile="kaggle", code=3)
    assert names(told, "fail") == {"credential"}
    assert names(told, "unknown") == {"kaggle"}
    assert names(told, "ok") >= {"python", "torch", "file system", "client"}
    failed = next(one for one in told["checks"] if one["state"] == "fail")
    assert "access_token" in failed["mend"]
    assert told["exit_code"] == 3


def test_the_local_profile_needs_nothing_and_starts_nothing(kagflow: Any, root: Path) -> None:
    told = kagflow("doctor")
    assert not names(told, "fail")
    assert not (root / ".kagflow" / "local" / "kaggle").exists()


def test_each_finding_is_a_line_and_each_mend_follows_it() -> None:
    assert doctor._lines(Check("disk", "ok", "much")) == ["ok    disk           much"]
    line, mend = doctor._lines(Check("disk", "fail", "little", "free some"))
    assert line.startswith("FAIL")
    assert mend.endswith("-> free some")


def test_the_code_is_that_of_the_worst_failure(
    kagflow: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    full = Check("disk", "fail", "0 GiB", "free some space")
    monkeypatch.setattr(machine, "disk_check", lambda _: full)
    told = kagflow("doctor", profile="kaggle", code=7)
    assert names(told, "fail") == {"disk", "credential"}
    monkeypatch.setattr(machine, "disk_check", lambda _: Check("disk", "warn", "little", "mind"))
    kagflow("doctor")


def test_neither_torch_nor_a_client_is_imported(root: Path) -> None:
    code = (
        "import sys; from kagflow.cli.app import main\n"
        "try: main(['doctor', '--profile', 'local'])\n"
        "except SystemExit: pass\n"
        "print({'torch', 'kaggle', 'pandas', 'cv2'} & set(sys.modules))"
    )
    done = process.run([sys.executable, "-c", code], cwd=root, timeout=60)
    assert done.stdout.strip().endswith("set()")


def test_strict_reads_every_manifest(kagflow: Any, root: Path) -> None:
    folder = root / ".kagflow" / "local" / "data" / "shapes"
    folder.mkdir(parents=True)
    (folder / "manifest.json").write_text('{"files": {"train.csv": {"sha256": "0"}}}')
    told = kagflow("doctor", "--strict", code=6)
    assert names(told, "fail") == {"manifests"}
    assert "torch computes" in names(told, "ok")
    assert "train.csv: is missing" in next(
        one["found"] for one in told["checks"] if one["name"] == "manifests"
    )


def test_a_first_contact_asks_shows_prices_and_is_remembered(
    kagflow: Any, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("kagflow.ship.doctor_steps.STEPS", (*STEPS[:2], STEPS[4]))
    refused = kagflow("doctor", "--live", code=8)
    assert "--yes" in refused["hint"]
    told = kagflow("doctor", "--live", "--yes")
    assert [one["ending"] for one in told["steps"]] == ["done", "done", "left out"]
    assert told["answers"]["dataset_ready_s"]["state"] == "verified"
    again = kagflow("doctor", "--live", "--yes")
    assert [one["ending"] for one in again["steps"]] == ["earlier", "earlier", "left out"]
    plain = kagflow("doctor")
    assert "3 verified" in next(
        one["found"] for one in plain["checks"] if one["name"] == "assumptions"
    )
    assert {"clock", "account", "quota"} <= names(plain, "ok")
    # The embedded one has no competition yet: no rules to look at.
    assert "rules" not in {one["name"] for one in plain["checks"]}
    assert kagflow("doctor", "shapes", code=4)["exit_code"] == 4


def test_a_step_without_live_is_a_wrong_word(kagflow: Any) -> None:
    assert "--live --step" in kagflow("doctor", "--step", "2", code=2)["hint"]


def test_prices_stand_before_the_question(
    root: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []

    def answer(*_: object, **__: object) -> bool:
        asked.append(capsys.readouterr().err)
        return False

    monkeypatch.setattr("sys.stdin.isatty", lambda: True, raising=False)
    monkeypatch.setattr("typer.confirm", answer)
    with pytest.raises(SystemExit):
        main(["--profile", "local", "doctor", "--live"])
    assert len(asked) == 1
    assert STEPS[0].price in asked[0]


@pytest.mark.slow
def test_a_first_contact_climbs_all_the_way(kagflow: Any) -> None:
    if not sandbox.probe_layers():
        pytest.skip("no sandbox works on this machine")
    kagflow("fetch", "shapes")
    told = kagflow("doctor", "--live", "--yes")
    assert [one["ending"] for one in told["steps"]] == ["done"] * 4 + ["left out"]
    assert "rules accepted" in told["steps"][0]["text"]
    (last,) = kagflow("doctor", "--live", "--step", "5", "--yes")["steps"]
    assert last["ending"] == "done"
    states = {one["name"]: one["state"] for one in told["answers"].values()}
    against = {name for name, state in states.items() if state == "contradicted"}
    # This machine's packages are not the image's; all else is as assumed.
    assert against <= {"image"}
    assert len(states) >= 13

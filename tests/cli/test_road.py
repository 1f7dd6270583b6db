"""The three commands as typed, and what stands around them, on a generated competition.

It is a classification, so that no stage is built for run lengths alone; local profile, no account.
"""

from __future__ import annotations

import csv
import json
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from kagflow.cli import training
from kagflow.cli.app import main
from kagflow.infer.kernel import PROOF
from kagflow.rehearse import sandbox, server, settings
from kagflow.ship.records import HoursRow, Records

SHAPES = Path(__file__).parents[1] / "competitions" / "shapes"


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Any:
    if not sandbox.probe_layers():
        pytest.skip("no sandbox works on this machine")
    folder = tmp_path_factory.mktemp("road")
    (folder / "competitions").mkdir()
    shutil.copytree(
        SHAPES, folder / "competitions" / "shapes", ignore=shutil.ignore_patterns("__pycache__")
    )
    yield folder
    server.stop(folder / ".kagflow" / "local" / "kaggle")


@pytest.fixture
def kagflow(root: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Any:
    monkeypatch.chdir(root)
    monkeypatch.setenv("KAGFLOW_HOME", str(root / "state"))
    monkeypatch.setenv("KAGFLOW_CACHE", str(root / "cache"))

    def run(*words: str, code: int = 0) -> Any:
        with pytest.raises(SystemExit) as stopped:
            main(["--json", "--profile", "local", *words])
        out, err = capsys.readouterr()
        assert (stopped.value.code or 0) == code, err
        return json.loads(out)

    return run


def test_the_road_as_typed(root: Path, kagflow: Any) -> None:
    fetched = kagflow("fetch", "shapes")
    assert fetched["generated"] is True
    assert fetched["next"] == "kagflow train fold=0 --profile local"
    trained = kagflow("train", "fold=0", "epochs=12")
    (run,) = trained["runs"]
    assert set(run) >= {"run", "fold", "score", "floor", "images", "seconds", "nonempty"}
    assert run["run"] == "tiny+epochs=12"
    dry = kagflow("submit", "--dry-run")
    assert set(dry) == {"schema", "plan", "receipt", "next"}
    assert dry["receipt"]["verdict"] == "yellow"
    assert dry["receipt"]["network_blocked"]
    assert dry["receipt"]["home_hidden"]
    assert dry["plan"]["internet"] is False
    label = json.loads(next(root.glob(".kagflow/local/ensembles/shapes/*.json")).read_text())
    assert label["cv"]["label"] == "one fold, not cross-fitted"
    assert label["cv"]["crossfitted"] is None
    assert kagflow("history")["submissions"] == []


def test_a_notebook_is_rehearsed_on_its_own(root: Path, kagflow: Any) -> None:
    dry = kagflow("submit", "--dry-run", "--notebook")
    assert (dry["plan"]["kernel_type"], dry["receipt"]["verdict"]) == ("notebook", "yellow")
    assert dry["plan"]["title"] == "kagflow shapes notebook"
    packs = root / ".kagflow/local/packs/shapes"
    pack = dry["plan"]["pack"]
    assert {file.name for file in packs.glob(f"{pack}*")} >= {
        pack, f"{pack}.kernel", f"{pack}.notebook.kernel", f"{pack}.receipt.json",
        f"{pack}.notebook.receipt.json"}  # fmt: skip


def test_submitting_is_the_plan_that_was_rehearsed_and_happens_once(kagflow: Any) -> None:
    refused = kagflow("submit", code=8)
    assert "--yes" in refused["hint"]
    first = kagflow("submit", "--yes")["submission"]
    assert first["status"] == "scored"
    assert first["private"] > first["floor"]
    assert first["kernel_version"] == 1
    second = kagflow("submit", "--yes")["submission"]
    assert second["ref"] == first["ref"]
    assert len(kagflow("history")["submissions"]) == 1
    told = kagflow("history", str(first["ref"]))
    assert (told["pack"], told["at_floor"]) == (first["pack"], [])
    (note,) = told["notes"]
    assert "nobody can see a hidden rerun's log" in note


def test_what_the_saved_run_took_calibrates_the_next_rehearsal(root: Path, kagflow: Any) -> None:
    file = root / ".kagflow/local/client/costs.json"
    (measured,) = json.loads(file.read_text())["measured"]
    assert measured["there"]["images"] == PROOF
    assert measured["source"] == "kernel"
    dry = kagflow("submit", "--dry-run")["receipt"]
    assert dry["calibrated"] is True
    assert dry["verdict"] == "green"
    assert 0 < dry["projected_minutes"] <= dry["projected_p95"] < 0.8 * dry["limit_minutes"]
    assert dry["projected_least"] is None


def test_the_finals_are_advised_from_what_was_submitted(root: Path, kagflow: Any) -> None:
    (row,) = kagflow("history")["submissions"]
    told = kagflow("shakeup")
    assert told["refs"] == [row["ref"]]
    assert told["candidates"][0]["public"] == row["public"]
    assert told["candidates"][0]["oof"] == pytest.approx(row["cv_naive"], abs=0.1)
    assert 0 < told["auc"] < 1
    stands = kagflow()["standing"]
    assert stands["advised"] == [row["ref"]]
    assert stands["ticked"] == []
    kagflow("local", "tick", "shapes", "--refs", str(row["ref"]))
    (root / ".kagflow/local/client").joinpath("standing-shapes-in-noise.json").unlink()
    assert kagflow()["standing"]["agrees"] is True


def test_a_kernel_on_a_cpu_costs_no_hours_and_goes_on_without_us(
    root: Path, kagflow: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    before = kagflow("quota")
    settings.change(root / ".kagflow/local/kaggle", gpu_hours=0.0)
    refused = kagflow("submit", "--again", "--yes", code=4)
    assert refused["error"].startswith("does not fit: ")
    offered = refused["hint"].partition(" takes 0 accelerator hours")[0]
    assert offered == "kagflow submit --cpu --again --profile local"
    assert kagflow(*offered.split()[1:], "--dry-run")["next"] == offered
    with monkeypatch.context() as patched:
        patched.setattr("kagflow.ship.submit.follow_kernel", stop)
        left = kagflow(*offered.split()[1:], "--yes", code=130)
    assert (left["status"], left["kernel_version"], left["ref"]) == ("running", 2, None)
    assert "version 2 goes on without this machine" in left["detached"]
    assert f"kagflow history {left['pack']}" in left["detached"]
    assert "kagflow submit --cpu --profile local waits on and submits it" in left["detached"]
    while (asked := kagflow("history", left["pack"]))["status"] == "running":
        time.sleep(0.2)
    assert (asked["status"], asked["explained"]["next"]) == (
        "ran",
        "kagflow submit shapes --cpu --profile local submits its finished run, unless the pack "
        "changed since",
    )
    told = kagflow("submit", "--cpu")
    plan, row = told["plan"], told["submission"]
    assert (row["attempt"], row["kernel_version"], row["status"]) == (2, 2, "scored")
    assert (plan["accelerator"], row["accelerator"], row["gpu_hours"]) == ("None", "None", 0.0)
    assert (plan["hours"]["needed_hours"], plan["hours"]["fits"]) == (0.0, True)
    receipt = next(root.glob(f".kagflow/local/packs/shapes/{left['pack']}.receipt.json"))
    projected = json.loads(receipt.read_text())
    assert projected["accelerator"] == "None"
    assert row["projected_p50"] == projected["projected_minutes"]
    stretches = Records(root / "state").select(HoursRow, accelerator="None")
    assert [one.kind for one in stretches] == ["kernel", "submission"]
    settings.change(root / ".kagflow/local/kaggle", gpu_hours=30.0)
    after = kagflow("quota")
    assert after["weeks"][0]["explained"] == before["weeks"][0]["explained"]
    assert after["quota"]["gpu"] == before["quota"]["gpu"]
    with sqlite3.connect(next(root.glob(".kagflow/local/kaggle/*.sqlite3"))) as db:
        runs = db.execute("SELECT kind, accelerator FROM session ORDER BY id").fetchall()
    assert runs == [("save", "gpu"), ("rerun", "gpu"), ("save", "none"), ("rerun", "none")]


def test_a_finished_stage_is_not_done_again(root: Path, kagflow: Any) -> None:
    assert kagflow("fetch", "shapes")["already"] is True
    best = next(root.glob(".kagflow/local/runs/shapes/*/fold0/best.safetensors"))
    before = best.stat().st_mtime_ns
    again = kagflow("train", "fold=0", "epochs=12")["runs"][0]
    assert again["fresh"] is False
    assert best.stat().st_mtime_ns == before
    packed = kagflow("pack")
    assert packed["reused"] is True
    (drift,) = packed["drift"]
    assert (drift["member"], drift["images"]) == ("tiny+epochs=12", 32)
    assert 0 < drift["mean"] <= drift["largest"] < 0.05
    assert abs(drift["full"] - drift["shipped"]) < 0.1
    beside = Path(packed["path"] + ".drift.json")
    assert json.loads(beside.read_text())["members"] == packed["drift"]


def test_a_learning_rate_is_suggested_and_nothing_trained(root: Path, kagflow: Any) -> None:
    (found,) = kagflow("train", "--find-lr", "fold=0", "epochs=3")["rates"]
    assert found["run"] == "tiny+epochs=3"
    assert 1e-6 < found["suggestion"] < 1
    run = root / ".kagflow/local/runs/shapes/tiny+epochs=3"
    assert Path(found["csv"]) == run / "lr-finder.csv"
    assert [path.name for path in run.iterdir()] == ["lr-finder.csv"]


def test_the_kernels_predictions_equal_the_local_ones(root: Path, kagflow: Any) -> None:
    local = root / "local.csv"
    images = root / ".kagflow/local/data/shapes/test_images"
    told = kagflow("predict", str(images), "-o", str(local))
    assert told["unreadable"] == {}
    saved = sorted(root.glob(".kagflow/local/kaggle/**/submission.csv"))
    by_rows = [file for file in saved if len(_rows(file)) == len(_rows(local))]
    assert by_rows, "the save run's output is kept"
    # Kaggle reruns this kernel on the hidden set, so its save predicts just enough to prove it.
    report = json.loads((by_rows[0].parent / "kagflow-report.json").read_text())
    proved = report["predicted"]
    assert (proved, report["skipped"]) == (PROOF, len(_rows(local)) - PROOF)
    mine = dict(_rows(local))
    saved_rows = _rows(by_rows[0])
    assert saved_rows[:proved] == [[n, mine[n]] for n, _ in saved_rows[:proved]]
    assert all(value == "" for _, value in saved_rows[proved:])
    assert kagflow("check", str(by_rows[0]))["faults"] == []


def test_a_new_run_makes_a_new_ensemble_and_another_pack(root: Path, kagflow: Any) -> None:
    before = kagflow("pack")["pack"]
    kagflow("train", "fold=1", "epochs=12")
    after = kagflow("pack")
    assert after["pack"] != before
    assert after["reused"] is False
    made = json.loads((root / ".kagflow/local/ensembles/shapes/default.json").read_text())
    assert made["members"][0]["folds"] == [0, 1]
    assert made["cv"]["label"] == "cross-fitted over 2 folds"


def test_a_training_on_everything_travels_beside_its_folds_only(root: Path, kagflow: Any) -> None:
    before = kagflow("pack")["pack"]
    (alone,) = kagflow("train", "fold=full", "epochs=1")["runs"]
    assert (alone["run"], alone["fold"], alone["score"]) == ("tiny+epochs=1", "full", None)
    assert kagflow("pack")["pack"] == before
    refused = kagflow("ensemble", "shapes", "tiny+epochs=1", "--name", "x", code=8)
    assert "trained on everything alone" in refused["error"]
    shutil.rmtree(root / ".kagflow/local/runs/shapes/tiny+epochs=1")
    kagflow("train", "fold=full", "epochs=12")
    packed = kagflow("pack")
    assert packed["pack"] != before
    names = {path.name for path in Path(packed["path"], "weights").glob("*.safetensors")}
    assert [name for name in names if ".full." in name]
    made = json.loads((root / ".kagflow/local/ensembles/shapes/default.json").read_text())
    assert made["members"][0]["folds"] == [0, 1, "full"]
    assert made["cv"]["label"].startswith("cross-fitted over 2 folds; not judged")
    shutil.rmtree(root / ".kagflow/local/runs/shapes/tiny+epochs=12/full")


def test_a_budget_stops_in_time_and_names_what_remains(
    root: Path, kagflow: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = ["train", "fold=0,1", "epochs=2", "seed=3", "budget=1s"]
    asked = iter([False, True, False])
    monkeypatch.setattr(training.How, "spent", lambda how: next(asked))
    told = kagflow(*words)
    assert (told["runs"], told["failed"]) == ([], [])
    begun, left = told["remaining"]
    assert (begun["run"], begun["fold"], left["fold"]) == ("tiny+epochs=2+seed=3", 0, 1)
    assert begun["remaining"]["step"] == 1 < begun["remaining"]["steps"]
    assert left["remaining"] is None
    assert told["next"] == f"kagflow {' '.join(words)} --profile local"
    (done,) = kagflow("train", "fold=0", "epochs=2", "seed=3", "on_done=true")["runs"]
    assert done["resumed"] == 1
    shutil.rmtree(root / ".kagflow/local/runs/shapes/tiny+epochs=2+seed=3")


def test_ctrl_c_leaves_a_state_from_which_the_same_command_continues(
    root: Path, kagflow: Any
) -> None:
    words = ["train", "fold=1", "epochs=20", "seed=7"]
    command = [sys.executable, "-m", "kagflow.cli.app", "--profile", "local", *words]
    child = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    metrics = root / ".kagflow/local/runs/shapes/tiny+epochs=20+seed=7/fold1/metrics.jsonl"
    while not metrics.is_file():
        assert child.poll() is None, child.stderr and child.stderr.read()
        time.sleep(0.01)
    child.send_signal(signal.SIGINT)
    rest = child.stderr.read() if child.stderr else ""
    assert child.wait(60) == 130
    assert "the same command continues" in rest
    assert "Traceback" not in rest
    (again,) = kagflow(*words)["runs"]
    assert again["resumed"] > 0
    shutil.rmtree(root / ".kagflow/local/runs/shapes/tiny+epochs=20+seed=7")


def test_a_run_without_a_common_fold_is_left_out(root: Path, kagflow: Any) -> None:
    before = kagflow("pack")["pack"]
    kagflow("train", "fold=2", "epochs=2")
    assert kagflow("pack")["pack"] == before


def test_a_sweep_goes_on_past_a_failed_run_and_tells_it(root: Path, kagflow: Any) -> None:
    told = kagflow("train", "fold=0", "epochs=1", "optimiser.target=adamw,adamww", code=2)
    (failed,) = told["failed"]
    assert failed["error"] == "unknown name 'adamww'"
    assert [one["run"] for one in told["runs"]] == ["tiny+epochs=1+optimiser.target=adamw"]
    finished = root / ".kagflow/local/runs/shapes/tiny+epochs=1+optimiser.target=adamw/fold0"
    assert (finished / "run.json").is_file()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["train", "fold=7"], "fold=7 is out of range"),
        (["train", "recipe=tny"], "no file"),
        (["train", "fold=0", "epoch=3"], "unknown key 'epoch', did you mean 'epochs'"),
        (["evaluate", "nothing"], "no run 'nothing'"),
        (["ensemble", "shapes", "nothing"], "no finished run 'nothing'"),
        (["history", "99"], "no submission '99'"),
        (["submit", "--ensemble", "other"], "no ensemble 'other'"),
    ],
)
def test_wrong_words_are_one_message_and_exit_2(
    kagflow: Any, words: list[str], message: str
) -> None:
    told = kagflow(*words, code=2)
    assert message in told["error"]
    assert told["hint"]


def test_evaluate_and_quota_have_their_keys(kagflow: Any) -> None:
    listed = kagflow("evaluate")
    assert {"run", "predicts", "folds", "images", "score", "floor"} <= set(listed["runs"][0])
    quota = kagflow("quota")
    assert {"schema", "account", "quota", "weeks", "other_machines", "planned"} <= set(quota)
    gpu, tpu = quota["weeks"]
    assert (gpu["source"], gpu["allowed"], tpu["allowed"]) == ("server", 30.0, 20.0)
    assert {"competition", "stages", "next"} <= set(kagflow())
    assert set(kagflow("local", "status")["running"]) >= {"url", "pid"}
    assert "http_proxy" in kagflow("local", "url")["environment"]


def _rows(path: Path) -> list[list[str]]:
    with path.open(newline="") as file:
        return list(csv.reader(file))[1:]

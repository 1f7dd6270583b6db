"""Several devices train several runs at a time, or one model together; how it is told and ends."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import yaml

from kagflow.cli import devices
from kagflow.cli.app import main
from kagflow.cli.devices import Slot, slots
from kagflow.cli.rows import Rows
from kagflow.cli.sweep import run_beside
from kagflow.cli.training import How
from kagflow.errors import DataError, LocalError, UsageError
from kagflow.output import Output
from kagflow.ship.records import HoursRow, Records
from kagflow.task.folds import write_folds

SHAPES = Path(__file__).parents[1] / "competitions" / "shapes"
RUN = "tiny+batch=4+epochs={}"


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a workspace with 24 small images fetched, in three folds."""
    ignored = shutil.ignore_patterns("__pycache__")
    shutil.copytree(SHAPES, tmp_path / "competitions" / "shapes", ignore=ignored)
    data = tmp_path / "data" / "shapes"
    (data / "train_images").mkdir(parents=True)
    rng, rows, folds = np.random.default_rng(0), ["ImageId,Label"], {}
    for number in range(24):
        name = f"{number:02}.png"
        cv2.imwrite(str(data / "train_images" / name), rng.integers(0, 255, (48, 48), np.uint8))
        rows.append(f"{name},{('cross', 'disc', '')[number % 3]}")
        folds[name] = (number, number % 3)
    (data / "train.csv").write_text("\n".join(rows) + "\n")
    write_folds(data / "folds.csv", folds)
    (data / "manifest.json").write_text("{}")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    return tmp_path


@pytest.fixture
def kagflow(root: Path, capsys: pytest.CaptureFixture[str]) -> Any:
    def run(*words: str, code: int = 0) -> Any:
        with pytest.raises(SystemExit) as stopped:
            main(["--json", *words])
        out, run.err = capsys.readouterr()  # type: ignore[attr-defined]
        assert (stopped.value.code or 0) == code, run.err  # type: ignore[attr-defined]
        return json.loads(out)

    return run


def test_two_devices_train_two_runs_at_once(root: Path, kagflow: Any) -> None:
    """One of them fails: the other finishes, both are in the ledger and have their log."""
    words = ["train", "fold=1", "epochs=2", "batch=4", "--device", "cpu,cpu"]
    model = "model.target=shapes.models:tiny,shapes.models:other"
    told = kagflow(*words, model, code=2)
    good, bad = (f"{RUN.format(2)}+model.target=shapes.models:{name}" for name in ("tiny", "other"))
    assert [(one["run"], one["fold"], one["finished"]) for one in told["runs"]] == [(good, 1, True)]
    assert 0 <= told["runs"][0]["score"] <= 1
    assert [one["run"] for one in told["failed"]] == [bad]
    assert "has no 'other'" in told["failed"][0]["error"]
    folder = root / "runs" / "shapes" / good / "fold1"
    assert json.loads((folder / "run.json").read_text())["finished"]
    assert (folder / "train.log").is_file()
    assert json.loads((folder / "provenance.json").read_text())["command"] == sys.argv
    rows = Records(Path(os.environ["KAGFLOW_HOME"])).select(HoursRow, competition="shapes")
    assert sorted(row.subject for row in rows) == [f"{bad}/fold1", f"{good}/fold1"]
    assert {row.accelerator for row in rows} == {"cpu"}
    assert all(row.ended for row in rows)
    assert "2 at a time, on cpu, cpu" in kagflow.err
    assert f"  {good} fold 1: epoch 2: loss" in kagflow.err
    assert f"{good} fold 1: out of fold: " in kagflow.err


@pytest.mark.slow
def test_a_signal_reaches_all_and_each_goes_on(root: Path, kagflow: Any) -> None:
    words = ["train", "fold=0,1,2", "epochs=300", "batch=4", "--device", "cpu,cpu"]
    command = [sys.executable, "-m", "kagflow.cli.app", "--json", *words]
    child = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    folders = [root / "runs" / "shapes" / RUN.format(300) / f"fold{fold}" for fold in range(3)]
    while not all((folder / "metrics.jsonl").is_file() for folder in folders[:2]):
        assert child.poll() is None, child.stderr and child.stderr.read()
        time.sleep(0.02)
    child.send_signal(signal.SIGTERM)
    out, err = child.communicate(timeout=60)
    assert child.returncode == 130, err
    assert [one["fold"] for one in json.loads(out)["remaining"]] == [0, 1, 2]
    assert not folders[2].exists()
    for folder in folders[:2]:
        assert list(folder.glob("ckpt-*.pt"))
        assert not (folder / "run.json").exists()
    # The locks are free: nobody trains on behind the command's back.
    (again,) = kagflow("train", "fold=0", "epochs=300", "batch=4", "--device", "cpu")["runs"]
    assert again["resumed"] > 0


@pytest.mark.slow
def test_one_model_on_two_processes(root: Path, kagflow: Any) -> None:
    (run,) = kagflow("train", "fold=0", "epochs=2", "batch=4", "gpus=2", "--device", "cpu")["runs"]
    assert run["finished"]
    folder = root / "runs" / "shapes" / RUN.format(2) / "fold0"
    assert yaml.safe_load((folder / "config.yaml").read_text())["processes"] == 2
    (again,) = kagflow("train", "fold=0", "epochs=2", "batch=4", "--device", "cpu")["runs"]
    assert not again["fresh"]


def test_slots(monkeypatch: pytest.MonkeyPatch) -> None:
    counted: list[int] = [4]
    monkeypatch.setattr(devices, "gpu_count", lambda: counted[0])
    gpus = [Slot((f"cuda:{index}",)) for index in range(4)]
    assert slots("auto", jobs=3) == gpus[:3]
    assert slots("cuda", jobs=9) == gpus
    assert slots("auto", jobs=1) == [Slot(("auto",))]
    assert slots("auto", jobs=9, gpus=2) == [
        Slot(("cuda:0", "cuda:1")), Slot(("cuda:2", "cuda:3")),
    ]  # fmt: skip
    assert slots("auto", gpus=3) == [Slot(("cuda:0", "cuda:1", "cuda:2"))]
    assert slots("cuda:3,cuda:1", jobs=2) == [Slot(("cuda:3",)), Slot(("cuda:1",))]
    assert slots("cpu", gpus=2, jobs=2) == [Slot(("cpu", "cpu"))]
    assert slots("cpu", jobs=5) == [Slot(("cpu",))]
    with pytest.raises(LocalError, match="gpus=5, but auto is 4 device"):
        slots("auto", gpus=5)
    with pytest.raises(UsageError, match="devices of one kind"):
        slots("cuda:0,cpu", gpus=2)
    counted[0] = 0
    assert slots("auto", jobs=5) == [Slot(("auto",))]
    with pytest.raises(LocalError, match="gpus=2, but auto is 1 device") as caught:
        slots("auto", gpus=2)
    assert "--device cpu" in caught.value.hint


def test_a_child_sees_its_own_devices(monkeypatch: pytest.MonkeyPatch) -> None:
    two = Slot(("cuda:1", "cuda:0"))
    assert two.environment(4) == {"CUDA_VISIBLE_DEVICES": "1,0"}
    assert two.inside == "cuda"
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "5,GPU-abc")
    assert two.environment(4) == {"CUDA_VISIBLE_DEVICES": "GPU-abc,5"}
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    assert Slot(("cpu",)).environment(4) == {"OMP_NUM_THREADS": "4"}
    assert Slot(("cpu", "cpu")).environment(4) == {"OMP_NUM_THREADS": "2"}
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    assert Slot(("cpu",)).environment(4) == {}


def test_words_that_are_not_the_recipes(monkeypatch: pytest.MonkeyPatch) -> None:
    given = {"memory": "6GB", "gpus": "2", "budget": "1h", "epochs": "3"}
    how = How.take(given, device="auto", force=True, began=100.0)
    assert (how.memory, how.gpus, how.until, how.force) == (6_000_000_000, 2, 3700.0, True)
    assert given == {"epochs": "3"}
    for wrong in ({"memory": "much"}, {"gpus": "0"}, {"gpus": "two"}, {"budget": "soon"}):
        with pytest.raises(UsageError):
            How.take(wrong, device="auto", force=False, began=0.0)


class TestBeside:
    def test_each_slot_takes_the_next_job(self) -> None:
        seen: list[tuple[str, int]] = []

        def train(job: Any, slot: int) -> dict[str, Any]:
            seen.append((job, slot))
            time.sleep(0.02)
            if job == "c":
                raise DataError("no")
            return {"run": job, "finished": job != "d"}

        outcome = run_beside(list("abcde"), train, [0, 1])  # type: ignore[arg-type]
        assert [one["run"] for one in outcome.finished] == ["a", "b", "e"]
        assert [one["run"] for one in outcome.begun] == ["d"]
        assert [one.job for one in outcome.failed] == ["c"]
        assert {slot for _, slot in seen} == {0, 1}
        assert outcome.status == "failed"

    def test_an_interrupt_leaves_the_rest(self) -> None:
        def train(job: Any, slot: int) -> dict[str, Any]:
            if job == "b":
                raise KeyboardInterrupt
            time.sleep(0.05)
            return {"run": job, "finished": True}

        outcome = run_beside(list("abcd"), train, [0, 1])  # type: ignore[arg-type]
        assert outcome.interrupted
        assert [one["run"] for one in outcome.finished] == ["a"]
        assert outcome.left == ["b", "c", "d"]

    def test_a_spent_budget_begins_nothing(self) -> None:
        asked = iter([False, True, True])

        def train(job: Any, slot: int) -> dict[str, Any]:
            return {"run": job, "finished": True}

        jobs: Any = list("abc")
        outcome = run_beside(jobs, train, [0], spent=lambda: next(asked))
        assert (len(outcome.finished), outcome.left) == (1, ["b", "c"])


def test_rows_in_a_pipe_are_lines_that_name_their_run(capsys: pytest.CaptureFixture[str]) -> None:
    figures = {"epoch": 0, "loss": 0.5, "images_per_second": 10.0, "wait_share": 0.25}
    with Rows(Output(), ("rust",)) as rows:
        one, two = rows.open("a fold 0"), rows.open("a fold 1")
        one.start("decode images", 3, "images")
        two.start("epoch 1/2", 4, "steps")
        one.finish()
        two.advance(2)
        two.show(figures | {"seconds_left": 60.0})
        assert two.told() == "2/4 steps, loss 0.5000, 60 s left"
        two.finish()
        two.show(figures, whole=True)
        rows.close(one)
        rows.close(two)
    lines = capsys.readouterr().err.splitlines()
    assert [line.rpartition(":")[0] for line in lines[:1]] == ["  a fold 0: decode images"]
    assert lines[1:] == ["  a fold 1: epoch 1: loss 0.5000; 10.0 images/s, waiting 25%"]


class TestPlan:
    def test_it_says_what_would_run_and_writes_nothing(self, root: Path, kagflow: Any) -> None:
        words = ["train", "fold=0,1", "epochs=2", "batch=4"]
        plan = kagflow(*words, "--plan", "memory=100MB")
        assert [(one["run"], one["fold"], one["standing"]) for one in plan["runs"]] == [
            (RUN.format(2), 0, "begins"), (RUN.format(2), 1, "begins"),
        ]  # fmt: skip
        assert plan["runs"][0]["steps"] == 8
        assert plan["seconds"] > plan["runs"][0]["seconds"] > 0
        assert "more than memory=100 MB" in kagflow.err
        assert plan["next"].startswith("kagflow train fold=0,1")
        assert not (root / "runs").exists()
        kagflow("train", "fold=0", "epochs=2", "batch=4", "--device", "cpu")
        plan = kagflow(*words, "--plan", "--device", "cpu,cpu")
        done, left = plan["runs"]
        assert (done["standing"], done["seconds"]) == ("finished", 0)
        assert left["source"] == f"{RUN.format(2)} fold0, finished"
        assert plan["at_once"] == 2
        assert plan["seconds"] == left["seconds"]
        assert [path.name for path in (root / "runs" / "shapes").iterdir()] == [RUN.format(2)]
        assert "fold0, finished" in kagflow.err

    def test_without_data_it_names_what_is_unknown(self, root: Path, kagflow: Any) -> None:
        shutil.rmtree(root / "data")
        plan = kagflow("train", "shapes", "--plan")
        assert [one["fold"] for one in plan["runs"]] == [0, 1, 2]
        assert plan["seconds"] is None
        assert plan["unknown"] == ["disk", "memory", "steps", "time"]
        assert plan["next"] == "kagflow fetch shapes"
        kagflow("train", "shapes", "--plan", "fold=7", code=2)
        kagflow("train", "shapes", code=2)

"""The whole road of `kagflow train --on ssh:HOST` against a real sshd on loopback."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from kagflow.cli.app import main
from kagflow.cli.jobs import Job
from kagflow.cli.ssh_outcome import Told, outcome
from kagflow.errors import RemoteError
from kagflow.ship.records import HoursRow, Records
from kagflow.task.folds import write_folds
from kagflow.task.index import build_index, write_index

TESTS = Path(__file__).parents[1]
SHAPES = TESTS / "competitions" / "shapes"
WORDS = ("train", "epochs=2", "batch=4", "--device", "cpu")
RUN = "tiny+batch=4+epochs=2"


def load(name: str) -> Any:
    spec = importlib.util.spec_from_file_location(Path(name).stem, TESTS / name)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def box(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """Return a running sshd that the ssh settings know as `box`."""
    sshd = load("ship/sshd.py")
    sshd.skip_without_sshd()
    server = sshd.Sshd(tmp_path / "the server")
    monkeypatch.setenv("KAGFLOW_SSH_CONFIG", str(server.config))
    server.start()
    yield server
    server.stop()


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a workspace, of a name with blanks, with 24 small images in three folds."""
    root = tmp_path / "my own wörkspace; rm -rf"
    ignored = shutil.ignore_patterns("__pycache__")
    shutil.copytree(SHAPES, root / "competitions" / "shapes", ignore=ignored)
    data = root / "data" / "shapes"
    (data / "train_images").mkdir(parents=True)
    rng, rows, folds = np.random.default_rng(0), ["ImageId,Label"], {}
    for number in range(24):
        name = f"{number:02} $(touch here) é.png" if number < 3 else f"{number:02}.png"
        cv2.imwrite(str(data / "train_images" / name), rng.integers(0, 255, (48, 48), np.uint8))
        rows.append(f"{name},{('cross', 'disc', '')[number % 3]}")
        folds[name] = (number, number % 3)
    (data / "train.csv").write_text("\n".join(rows) + "\n")
    write_folds(data / "folds.csv", folds)
    (data / "manifest.json").write_text('{"profile": "kaggle"}')
    monkeypatch.chdir(root)
    monkeypatch.setattr(sys, "path", list(sys.path))
    return root


@pytest.fixture
def kagflow(root: Path, capsys: pytest.CaptureFixture[str]) -> Any:
    def run(*words: str, code: int = 0) -> Any:
        with pytest.raises(SystemExit) as stopped:
            main(["--json", *words])
        out, run.err = capsys.readouterr()  # type: ignore[attr-defined]
        assert (stopped.value.code or 0) == code, run.err  # type: ignore[attr-defined]
        return json.loads(out)

    return run


def test_a_host_trains_what_this_machine_would_have(box: Any, root: Path, kagflow: Any) -> None:
    """The run comes back whole, to the bit what training here gives; hours are in the ledger."""
    (there,) = kagflow(*WORDS, "fold=1", "--on", "ssh:box")["runs"]
    folder = root / "runs" / "shapes" / RUN / "fold1"
    kept = {name: (folder / name).read_bytes() for name in ("best.safetensors", "oof/labels.csv")}
    lines = [one.partition(":")[0] for one in kagflow.err.splitlines()]
    assert [one for one in lines if one.startswith("  epoch")] == ["  epoch 1", "  epoch 2"]
    assert '"what"' not in kagflow.err
    (row,) = Records(Path(os.environ["KAGFLOW_HOME"])).select(HoursRow, competition="shapes")
    assert (row.place, row.subject, row.accelerator) == ("ssh:box", f"{RUN}/fold1", "cpu")
    # No place is named: it was handed over there last.
    (attached,) = kagflow("train", "--attach")["runs"]
    assert "handed over last: --on ssh:box" in kagflow.err
    assert attached["score"] == there["score"]
    shutil.rmtree(folder)
    (here,) = kagflow(*WORDS, "fold=1")["runs"]
    assert there["score"] == here["score"]
    for name, data in kept.items():
        assert (folder / name).read_bytes() == data, name


def test_pseudo_labels_and_their_images_go_along(box: Any, root: Path, kagflow: Any) -> None:
    """The host has no test images; what it trains is what this machine would have trained."""
    data = root / "data" / "shapes"
    (data / "test_images").mkdir()
    rng = np.random.default_rng(1)
    for number in range(4):
        pixels = rng.integers(0, 255, (48, 48), np.uint8)
        cv2.imwrite(str(data / "test_images" / f"{number:02}.png"), pixels)
    write_index(data / "index.csv", build_index(data / "train_images"))
    kagflow(*WORDS, "fold=1,2")
    student = (*WORDS, "fold=1", "pseudo=default", "pseudo_share=0.25")
    kagflow(*student, "--on", "ssh:box")
    folder = root / "runs" / "shapes" / f"{RUN}+pseudo=default+pseudo_share=0.25" / "fold1"
    kept = (folder / "best.safetensors").read_bytes()
    assert json.loads((folder / "run.json").read_text())["pseudo"]["images"] == 4
    shutil.rmtree(folder)
    kagflow(*student)
    assert (folder / "best.safetensors").read_bytes() == kept


def start(*words: str) -> subprocess.Popen[str]:
    argv = [sys.executable, "-m", "kagflow.cli.app", "--json", *words]
    return subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def on_the_host(box: Any, name: str, child: subprocess.Popen[str]) -> Path:
    """Wait until a file of a run is there on the host."""
    home = box.folder / "home of the höst" / ".kagflow-host"
    while not (found := list(home.glob(f"runs/*/*/fold*/{name}"))):
        assert child.poll() is None, child.stderr and child.stderr.read()
        time.sleep(0.02)
    return Path(found[0])


def weights(root: Path, run: str, fold: int) -> bytes:
    return (root / "runs" / "shapes" / run / f"fold{fold}" / "best.safetensors").read_bytes()


@pytest.mark.slow
def test_a_killed_command_is_attached_to_again(box: Any, root: Path, kagflow: Any) -> None:
    """One training, one stretch in the ledger, and the weights of an unbroken run here."""
    words = ("train", "epochs=60", "batch=4", "fold=0")
    child = start(*words, "--on", "ssh:box")
    on_the_host(box, "metrics.jsonl", child)
    child.kill()
    child.wait()
    run = "tiny+batch=4+epochs=60"
    (told,) = kagflow("train", "--attach")["runs"]
    assert (told["run"], told["finished"]) == (run, True)
    jobs = box.folder / "home of the höst" / ".kagflow-host" / "jobs"
    assert len(list(jobs.glob("*/job.json"))) == 1
    (row,) = Records(Path(os.environ["KAGFLOW_HOME"])).select(HoursRow, competition="shapes")
    assert row.ended is not None
    assert row.seconds is not None
    assert row.seconds > told["seconds"]
    there = weights(root, run, 0)
    shutil.rmtree(root / "runs")
    kagflow(*words)
    assert weights(root, run, 0) == there


@pytest.mark.slow
def test_ctrl_c_leaves_it_and_a_stopped_run_goes_on(box: Any, root: Path, kagflow: Any) -> None:
    """Stopped there by its process number, gone on with there, then from here: the same weights."""
    words = ("train", "epochs=80", "batch=4", "fold=0", "--on", "ssh:box")
    run = "tiny+batch=4+epochs=80"
    child = start(*words)
    on_the_host(box, "metrics.jsonl", child)
    child.send_signal(signal.SIGINT)
    out, err = child.communicate(timeout=60)
    assert child.returncode == 130, err
    assert json.loads(out)["remaining"] == [{"run": run, "fold": 0, "remaining": None}]
    assert "--on ssh:box --attach" in err
    stop = re.search(r"ssh box kill (\d+)", err)
    assert stop is not None, err
    os.kill(int(stop[1]), signal.SIGTERM)
    kagflow(*words, "--attach")
    assert "going on from step" not in kagflow.err
    folder = root / "runs" / "shapes" / run / "fold0"
    assert list(folder.glob("ckpt-*.pt"))
    assert not (folder / "run.json").exists()
    (told,) = kagflow(*words)["runs"]
    assert "going on from step" in kagflow.err
    assert told["finished"]
    there = weights(root, run, 0)
    shutil.rmtree(root / "runs")
    kagflow(*words[:-2])
    assert weights(root, run, 0) == there


@pytest.mark.slow
def test_what_was_begun_here_goes_on_there(box: Any, root: Path, kagflow: Any) -> None:
    child = start("train", "epochs=80", "batch=4", "fold=0")
    run = "tiny+batch=4+epochs=80"
    folder = root / "runs" / "shapes" / run / "fold0"
    while not (folder / "metrics.jsonl").is_file():
        assert child.poll() is None, child.stderr and child.stderr.read()
        time.sleep(0.02)
    child.send_signal(signal.SIGTERM)
    child.communicate(timeout=60)
    assert list(folder.glob("ckpt-*.pt"))
    (told,) = kagflow("train", "epochs=80", "batch=4", "fold=0", "--on", "ssh:box")["runs"]
    assert told["finished"]
    assert "going on from step" in kagflow.err
    there = weights(root, run, 0)
    shutil.rmtree(root / "runs")
    kagflow("train", "epochs=80", "batch=4", "fold=0")
    assert weights(root, run, 0) == there


@pytest.mark.slow
def test_a_sweep_goes_on_past_what_fails(box: Any, root: Path, kagflow: Any) -> None:
    """What fails says so in its own words; the finished one is here, and is not sent again."""
    words = ("train", "epochs=2", "batch=4", "fold=0,1", "--on", "ssh:box")
    told = kagflow(*words, "model.target=shapes.models:other,shapes.models:tiny", code=4)
    assert [(one["fold"], one["finished"]) for one in told["runs"]] == [(0, True), (1, True)]
    assert {one["fold"] for one in told["failed"]} == {0, 1}
    assert all("on box: " in one["error"] for one in told["failed"])
    assert all("has no 'other'" in one["error"] for one in told["failed"])
    alone = kagflow(*WORDS, "fold=0", "model.target=shapes.models:other", "--on", "ssh:box", code=4)
    assert "has no 'other'" in alone["error"]


def test_there_is_nothing_to_attach_to(box: Any, root: Path, kagflow: Any) -> None:
    told = kagflow("train", "--on", "ssh:box", "--attach", code=2)
    assert "nothing of this was handed over to box" in told["error"]
    told = kagflow("train", "--attach", code=2)
    assert "nothing of shapes was handed over from this workspace" in told["error"]
    told = kagflow(*WORDS, "fold=1", "--on", "ssh:-oProxyCommand=x", code=2)
    assert "names no host" in told["error"]
    shutil.rmtree(root / "data")
    told = kagflow("train", "--on", "ssh:box", "--attach", code=2)
    assert "has not been fetched" in told["error"]


@pytest.mark.parametrize(
    ("code", "tail", "said"),
    [
        (1, ("epoch 1", "torch.OutOfMemoryError: CUDA out of memory."), "likely out of memory"),
        (1, ("ModuleNotFoundError: No module named 'smp'",), "likely a module is missing"),
        (-9, ("epoch 1",), "was killed: memory may have run out\n  epoch 1"),
        (None, (), "ended without a word"),
    ],
)
def test_a_death_is_explained_by_its_last_words(
    tmp_path: Path, code: int | None, tail: tuple[str, ...], said: str
) -> None:
    job: Any = Job("run", 0, None, tmp_path / "fold0")  # type: ignore[arg-type]
    order: Any = None
    with pytest.raises(RemoteError) as caught:
        outcome(order, Told("box", code, tail=tail), [job])
    assert said in caught.value.message
    assert "run fold 0 on box" in caught.value.message

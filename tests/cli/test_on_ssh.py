"""The whole road of `kagflow train --on ssh:HOST` against a real sshd on loopback."""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from kagflow.cli.app import main
from kagflow.ship.records import HoursRow, Records
from kagflow.task.folds import write_folds

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
    (data / "manifest.json").write_text("{}")
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
    (row,) = Records(Path(os.environ["KAGFLOW_HOME"])).select(HoursRow, competition="shapes")
    assert (row.place, row.subject, row.accelerator) == ("ssh:box", f"{RUN}/fold1", "cpu")
    shutil.rmtree(folder)
    (here,) = kagflow(*WORDS, "fold=1")["runs"]
    assert there["score"] == here["score"]
    for name, data in kept.items():
        assert (folder / name).read_bytes() == data, name

"""The notebook for a hosted GPU: its cells run here, its storage a folder, its machine lost."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import nbformat
import pytest

from kagflow import resources
from kagflow.cli.app import main
from kagflow.rehearse import server

SHAPES = Path(__file__).parent / "competitions" / "shapes"
# Long enough to be interrupted in the middle, short enough to be done twice.
WORDS = "fold=0 epochs=12 samples=60"
SETTINGS = {"fold=all": WORDS, '"kagflow"': '""', '"8h"': '"1h"'}


class Machine:
    """A hosted machine with a storage that outlives it."""

    def __init__(self, root: Path) -> None:
        self.root, self.storage = root / "machine", root / "storage"
        self.env = os.environ | {"KAGFLOW_STORAGE": str(self.storage), "KAGFLOW_PROFILE": "local"}
        shutil.copytree(
            SHAPES,
            self.storage / "competitions" / "shapes",
            ignore=shutil.ignore_patterns("__pycache__"),
        )
        self.root.mkdir()

    @property
    def runs(self) -> Path:
        return self.root / ".kagflow" / "local" / "runs"

    def start(self) -> subprocess.Popen[str]:
        """Run all cells."""
        command = [sys.executable, "-u", "-c", code()]
        return subprocess.Popen(
            command,
            cwd=self.root,
            env=self.env,
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )

    def lose(self) -> None:
        """Lose everything that only this machine had of the runs."""
        shutil.rmtree(self.runs)


def code() -> str:
    """Return the notebook's code cells for the shapes competition, one after the other."""
    text = (resources.templates() / "notebook.ipynb").read_text().replace("NAME", "shapes")
    notebook = nbformat.reads(text, as_version=4)
    nbformat.validate(notebook)
    cells = [cell.source for cell in notebook.cells if cell.cell_type == "code"]
    assert all(len(cell.splitlines()) <= 12 for cell in cells), "cells stay readable"
    settings = cells[0]
    for before, after in SETTINGS.items():
        assert before in settings
        settings = settings.replace(before, after)
    return "\n\n".join([settings, *cells[1:]])


@pytest.fixture
def machine(tmp_path: Path) -> Iterator[Machine]:
    found = Machine(tmp_path)
    yield found
    server.stop(found.root / ".kagflow" / "local" / "kaggle")


def until(child: subprocess.Popen[str], mark: str) -> list[str]:
    """Read lines up to the one that holds `mark`."""
    assert child.stdout is not None
    lines: list[str] = []
    for line in child.stdout:
        lines.append(line)
        if mark in line:
            return lines
    raise AssertionError("".join(lines))


def rest(child: subprocess.Popen[str]) -> list[str]:
    assert child.stdout is not None
    lines = child.stdout.readlines()
    child.wait(60)
    return lines


def finished(machine: Machine, lines: list[str], child: subprocess.Popen[str]) -> None:
    assert child.returncode == 0, "".join(lines)
    assert "all of it is on the storage\n" in lines
    (run,) = (machine.storage / "runs").glob("shapes/*/fold0/run.json")
    assert json.loads(run.read_text())["finished"]
    assert (run.parent / "oof" / "labels.csv").is_file()


def test_a_session_that_is_stopped_goes_on_on_another_machine(machine: Machine) -> None:
    child = machine.start()
    until(child, "  epoch 3: ")
    os.kill(child.pid, signal.SIGINT)
    lines = rest(child)
    assert any("interrupted; nothing is lost" in line for line in lines), "".join(lines)
    assert any("copied and read back" in line for line in lines)
    (sidecar,) = (machine.storage / "runs").glob("shapes/*/fold0/ckpt-*.json")
    step = sidecar.stem.removeprefix("ckpt-")
    machine.lose()
    child = machine.start()
    lines = until(child, f"going on from step {step}") + rest(child)
    finished(machine, lines, child)
    epochs = [line for line in lines if line.startswith("  epoch ")]
    assert not any(line.startswith("  epoch 1:") for line in epochs)


@pytest.mark.slow
def test_a_machine_that_is_lost_without_a_word_costs_what_came_since(machine: Machine) -> None:
    child = machine.start()
    until(child, "  epoch 3: ")
    os.kill(child.pid, signal.SIGINT)
    rest(child)
    machine.lose()
    for mark in ("going on from step", "  epoch 6: ", "  epoch 9: "):
        child = machine.start()
        until(child, mark)
        kill_all(child)
        machine.lose()
    child = machine.start()
    lines = rest(child)
    assert any("going on from step" in line for line in lines)
    finished(machine, lines, child)


def kill_all(child: subprocess.Popen[str]) -> None:
    """Kill a process and every one that it started, in whatever session."""
    family, found = [], [child.pid]
    while found:
        family.append(pid := found.pop())
        found += map(int, Path(f"/proc/{pid}/task/{pid}/children").read_text().split())
    for pid in family:
        os.kill(pid, signal.SIGKILL)
    rest(child)


def test_init_writes_it_for_a_competition_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(SHAPES, tmp_path / "competitions" / "shapes")
    monkeypatch.chdir(tmp_path)
    for code_ in (0, 8):
        with pytest.raises(SystemExit) as stopped:
            main(["init", "shapes", "--notebook", "--json"])
        assert (stopped.value.code or 0) == code_
    told = json.loads(capsys.readouterr().out.splitlines()[0])
    assert set(told) == {"schema", "competition", "notebook"}
    notebook = nbformat.read(told["notebook"], as_version=4)
    assert 'COMPETITION = "shapes"' in notebook.cells[1].source

"""`kagflow train --on kaggle`, as it is typed and killed, against the embedded Kaggle."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from kagflow import durable
from kagflow.cli import competitions, jobs, remotes, words
from kagflow.cli.executors import Order
from kagflow.cli.on_kaggle import OnKaggle
from kagflow.cli.session import Session
from kagflow.cli.sweep import Outcome
from kagflow.cli.training import How
from kagflow.errors import RefusedError, RemoteError, UsageError
from kagflow.learn import pretrained
from kagflow.output import Output
from kagflow.rehearse import sandbox, server, settings
from kagflow.ship import load, parts, train_chain, train_order
from kagflow.ship.budget import Action, Judgement
from kagflow.ship.records import HoursRow, Records
from kagflow.ship.train_session import Ended
from kagflow.workspace import Workspace

SHAPES = Path(__file__).parents[1] / "competitions" / "shapes"
# Stops a session after so many steps, whatever a machine's speed; a training here has no budget.
STEPS, EPOCHS = 80, 30
STOPPING = f"""

def stopping(*, classes: int, width: int) -> nn.Module:
    import os, signal, sys

    model, seen = tiny(classes=classes, width=width), itertools.count(1)
    away = any(word.startswith("budget=") for word in sys.argv)

    def look(one, _):
        if one.training and away and next(seen) == {STEPS}:
            os.kill(os.getpid(), signal.SIGTERM)

    model.register_forward_pre_hook(look)
    return model
"""
PROGRAM = "from kagflow.cli.app import main; main()"
WORDS = ("train", "shapes", "fold=0", "recipe=stopping")
AWAY = (*WORDS, "--on", "kaggle", "--hours", "1", "--yes")


class Place:
    """A workspace, and kagflow in processes of its own there."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.environment = {
            **os.environ,
            "KAGFLOW_HOME": str(root / "state"),
            "KAGFLOW_PROFILE": "local",
            "OMP_NUM_THREADS": "1",
        }
        self.store = root / ".kagflow" / "local" / "kaggle"
        self.run_folder = root / ".kagflow/local/runs/shapes" / "stopping" / "fold0"

    def kagflow(self, *words: str, code: int = 0, until: str = "") -> str:
        """Run a command; where it prints `until`, kill it there."""
        child = subprocess.Popen(
            [sys.executable, "-c", PROGRAM, *words],
            cwd=self.root,
            env=self.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        said = ""
        assert child.stdout is not None
        for line in child.stdout:
            said += line
            if until and until in line:
                child.send_signal(signal.SIGKILL)
                child.wait()
                return said
        assert child.wait() == code, said
        assert not until, said
        return said


def write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


class Kaggle:
    """An account that nobody asks anything else."""

    profile = "local"

    def account(self) -> str:
        return "me"


class Stage:
    """A workspace whose trainings are handed to a chain that only remembers them."""

    def __init__(self, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        shutil.copytree(
            SHAPES, root / "competitions/shapes", ignore=shutil.ignore_patterns("__pycache__")
        )
        for name in [one for one in sys.modules if one.partition(".")[0] == "shapes"]:
            # Another test's copy of the plug-in.
            monkeypatch.delitem(sys.modules, name)
        monkeypatch.syspath_prepend(root / "competitions")
        self.session = Session(Output(json_mode=False, quiet=True), Workspace(root, "local"))
        data = self.session.workspace.data("shapes")
        write(data / "manifest.json", '{"generated": true}')
        write(data / "folds.csv", "image_id,cluster,fold\na.png,0,0\nb.png,1,1\n")
        write(data / "train.csv", "ImageId,Label\na.png,disc\nb.png,\n")
        self.known = competitions.find(self.session.workspace, "shapes")
        self.chains: list[Any] = []
        self.ends: Any = lambda chain, ask: Ended((), 0.0)
        stage = self

        class Chain:
            def __init__(self, *given: Any, **where: Any) -> None:
                self.order, self.parts, self.where = given[0], given[1], where
                stage.chains.append(self)

            def run(self, *, attach: bool, ask: Any) -> Ended:
                self.attach = attach
                return stage.ends(self, ask)

        monkeypatch.setattr(train_chain, "Chain", Chain)
        monkeypatch.setattr(train_order, "build_code", code_part)
        monkeypatch.setattr(remotes, "open_remote", lambda session: Kaggle())
        monkeypatch.setenv("KAGFLOW_HOME", str(root / "state"))

    def order(self, *typed: str, how: How | None = None, yes: bool = True) -> Order:
        planned = jobs.plan(self.session, self.known, words.split(typed).overrides) if typed else []
        how = how or How()
        return Order(self.session, self.known, tuple(planned), how, None, False, "train", yes)

    def train(self, *typed: str, attach: bool = False, **changes: Any) -> Outcome:
        return OnKaggle().run(self.order(*typed, **changes), attach=attach)


def code_part(root: Path, **_: object) -> parts.Part:
    write(root / "wheel", "wheel")
    facts = {"wheel": {"sha256": durable.sha256_file(root / "wheel"), "bytes": 5}}
    return load.place_part(root, parts.seal("code", facts), {"wheel": root / "wheel"})


@pytest.fixture
def stage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Stage:
    return Stage(tmp_path, monkeypatch)


def test_what_is_handed_over_is_the_command_itself_and_all_it_needs(stage: Stage) -> None:
    stage.train("fold=0,1", "optimiser.lr=1e-3")
    (chain,) = stage.chains
    first, second = chain.order.jobs
    run = "tiny+optimiser.lr=1e-3"
    assert (first.run, second.run) == (f"{run}/fold0", f"{run}/fold1")
    assert first.words[:2] == ("train", "shapes")
    assert {"fold=0", "recipe=tiny", "optimiser.lr=1e-3"} <= set(first.words)
    assert first.words[-2:] == ("--profile", "local")
    assert chain.order.hours == 12
    assert chain.order.runs == ".kagflow/local/runs/shapes"
    places = chain.parts[1].manifest["places"]
    assert {"competitions/shapes/models.py", ".kagflow/local/data/shapes/folds.csv"} <= set(places)
    assert not any("images" in one for one in places)


def test_weights_of_the_hub_go_along(
    stage: Stage, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    write(tmp_path / "model.safetensors", "weights")
    asked = []

    def files(model: Any, *, classes: int) -> dict[str, Path]:
        asked.append((model["target"], classes))
        return {"models--a/snapshots/0/model.safetensors": tmp_path / "model.safetensors"}

    monkeypatch.setattr(pretrained, "hub_files", files)
    stage.train("fold=0", "weights=imagenet")
    assert asked == [("shapes.models:tiny", 3)]
    places = stage.chains[0].parts[1].manifest["places"]
    digest = durable.sha256_file(tmp_path / "model.safetensors")
    assert places["hub/models--a/snapshots/0/model.safetensors"] == digest


def test_the_same_training_is_the_same_order_and_other_code_another(stage: Stage) -> None:
    stage.train("fold=0")
    stage.train("fold=0")
    stage.train("fold=1")
    with (stage.known.folder / "models.py").open("a") as file:
        file.write("# changed\n")
    stage.train("fold=0")
    keys = [one.order.key for one in stage.chains]
    assert keys[0] == keys[1]
    assert len(set(keys)) == 3


def test_attaching_without_words_means_what_was_handed_over_last(stage: Stage) -> None:
    with pytest.raises(UsageError, match="nothing of this was handed over"):
        stage.train(attach=True)
    with pytest.raises(UsageError, match="nothing of this was handed over"):
        stage.train("fold=0", attach=True)
    stage.train("fold=0")
    stage.train("fold=0,1")
    found = stage.train(attach=True)
    last, attached = stage.chains[-2:]
    assert attached.order.key == last.order.key
    assert attached.attach is True
    assert [job.fold for job in found.left] == [0, 1]


@pytest.mark.parametrize("how", [How(until=1.0), How(device="cuda:1")])
def test_words_for_this_machine_are_refused(stage: Stage, how: How) -> None:
    with pytest.raises(UsageError):
        stage.train("fold=0", how=how)
    assert stage.chains == []


def test_no_hours_are_no_training(stage: Stage) -> None:
    order = replace(stage.order("fold=0"), hours=0.0)
    with pytest.raises(UsageError, match="no time"):
        OnKaggle().run(order, attach=False)


def test_hours_are_spent_only_where_somebody_says_so(stage: Stage) -> None:
    judged = Judgement((Action("the training", 3600.0, 3600.0),), 7200.0, None)

    def ask(chain: Any, ask: Any) -> Ended:
        ask(judged, 60.0)
        return Ended((), 0.0)

    stage.ends = ask
    stage.train("fold=0")
    with pytest.raises(RefusedError) as refused:
        stage.train("fold=0", yes=False)
    assert "--yes" in refused.value.hint


def test_a_failed_run_is_told_beside_one_that_is_left(stage: Stage) -> None:
    stage.ends = lambda chain, ask: Ended((), 1.0, failed=("tiny/fold1",), tail=("error: x",))
    found = stage.train("fold=0,1")
    assert [one.job.fold for one in found.failed] == [1]
    assert [job.fold for job in found.left] == [0]
    assert found.failed[0].exit_code == RemoteError.exit_code


def test_a_kernels_news_are_told_as_those_of_a_training_here(
    stage: Stage, capsys: pytest.CaptureFixture[str]
) -> None:
    figures = {"epoch": 0, "loss": 0.5, "images_per_second": 20.0, "wait_share": 0.1}
    news = {"what": "show", "of": "tiny fold 0", "figures": figures, "whole": True}

    def follow(chain: Any, ask: Any) -> Ended:
        for text in (json.dumps(news), "a remark", json.dumps(news)):
            chain.where["progress"].note(text)
        return Ended((), 0.0)

    stage.ends, stage.session = follow, replace(stage.session, out=Output())
    stage.train("fold=0")
    lines = capsys.readouterr().err.splitlines()
    assert lines[-2:] == ["  epoch 1: loss 0.5000; 20.0 images/s, waiting 10%", "a remark"]


def test_an_interrupt_loses_nothing(stage: Stage) -> None:
    def stop(chain: Any, ask: Any) -> Ended:
        raise KeyboardInterrupt

    stage.ends = stop
    assert stage.train("fold=0").interrupted


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    if not sandbox.probe_layers():
        pytest.skip("no sandbox works on this machine")
    root = tmp_path_factory.mktemp("away")
    folder = root / "competitions" / "shapes"
    shutil.copytree(SHAPES, folder, ignore=shutil.ignore_patterns("__pycache__"))
    with (folder / "models.py").open("a") as file:
        file.write(STOPPING)
    recipe = (folder / "recipes" / "tiny.yaml").read_text()
    assert f"epochs: {EPOCHS}" in recipe
    own = recipe.replace("models:tiny", "models:stopping")
    (folder / "recipes" / "stopping.yaml").write_text(own)
    made = Place(root)
    made.kagflow("fetch", "shapes")
    yield made
    server.stop(made.store)


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_sessions_through_kills_and_a_refusal_make_what_one_run_makes(
    place: Place, tmp_path: Path
) -> None:
    here = Place(tmp_path / "here")
    shutil.copytree(place.root / "competitions", here.root / "competitions")
    for part in ("data", ".active.json"):
        copy(place.root / ".kagflow/local" / part, here.root / ".kagflow/local" / part)
    unbroken = threading.Thread(target=lambda: here.kagflow(*WORDS))
    unbroken.start()

    place.kagflow(*AWAY, until="check pack")
    place.kagflow(*AWAY, until="session 1:")
    settings.change(place.store, gpu_hours=0.0)
    refused = place.kagflow(*AWAY, code=RemoteError.exit_code)
    assert "does not fit" in refused, refused
    refused = place.kagflow(*AWAY, "--over-quota", code=RemoteError.exit_code)
    assert "Maximum weekly GPU quota of 0.00 hours reached" in refused
    settings.change(place.store, gpu_hours=30.0)
    place.kagflow(*AWAY, until="took over")
    attached = place.kagflow("train", "--attach")
    assert "took over" in attached
    epochs = re.findall(r"^  epoch (\d+): loss", attached, re.MULTILINE)
    assert epochs
    assert len(set(epochs)) == len(epochs)
    assert "goes on" in attached
    place.kagflow(*AWAY, until="session 3:")
    said = place.kagflow(*AWAY)
    assert "out of fold" in said
    unbroken.join()

    assert made(place) == made(here)
    ledger = Records(place.root / "state").select(HoursRow, place="kaggle", profile="local")
    assert len(ledger) == 3
    assert all(row.ended for row in ledger)
    assert place.kagflow(*AWAY).count("session") == 0


def copy(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    if source.is_dir():
        shutil.copytree(source, target)
    else:
        shutil.copyfile(source, target)


def made(place: Place) -> dict[str, Any]:
    """Return what a training made, less how long it took and where."""
    timed = {"images_per_second", "wait_share"}
    folder = place.run_folder
    lines = map(json.loads, (folder / "metrics.jsonl").read_text().splitlines())
    run = json.loads((folder / "run.json").read_text())
    return {
        "weights": durable.sha256_file(folder / "best.safetensors"),
        "metrics": [{k: v for k, v in line.items() if k not in timed} for line in lines],
        "oof": {
            path.name: durable.sha256_file(path) for path in sorted((folder / "oof").rglob("*.*"))
        },
        **{key: run[key] for key in ("score", "per_class", "steps", "data", "recipe")},
    }

"""Pseudo-labels on the command line: faults come first, and the teacher stays who it was."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from kagflow import durable
from kagflow.cli import competitions, ensemble, jobs, pseudo
from kagflow.cli.session import Session
from kagflow.cli.training import How
from kagflow.errors import UsageError
from kagflow.learn.cache import data_hash
from kagflow.output import Output
from kagflow.workspace import Workspace


@pytest.fixture
def session(tmp_path: Path) -> Session:
    """Return a workspace with a competition of two folds, and images in neither folder."""
    folder = tmp_path / "competitions" / "squares"
    (folder / "recipes").mkdir(parents=True)
    config = "slug: squares\ntitle: Squares\nclasses: ['1']\ndefault_recipe: tiny\n"
    (folder / "competition.yaml").write_text(config)
    (folder / "recipes" / "tiny.yaml").write_text("model: {target: smp}\n")
    data = tmp_path / "data" / "squares"
    data.mkdir(parents=True)
    (data / "manifest.json").write_text("{}")
    (data / "folds.csv").write_text("image_id,cluster,fold\na.png,0,0\nb.png,1,1\n")
    return Session(Output(), Workspace(tmp_path, "kaggle"))


@pytest.fixture
def ask(session: Session):
    """Return what plans and checks words, and gives the jobs."""
    known = competitions.find(session.workspace, "squares")

    def check(**words: str) -> list[jobs.Job]:
        planned = jobs.plan(session, known, words)
        pseudo.check(session, known, planned, How())
        return planned

    return check


def write_ensemble(session: Session, name: str, folds: tuple[int, ...]) -> Path:
    """Write an ensemble of one run, as `kagflow ensemble` does."""
    weights = []
    for fold in folds:
        file = session.workspace.runs("squares") / "lite" / f"fold{fold}" / "best.safetensors"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(b"weights")
        weights.append(str(file.relative_to(session.workspace.home)))
    member = {
        "run": "lite", "predicts": "mask", "weights": weights,
        "model": {"target": "smp"}, "input": {"target": "grey"},
    }  # fmt: skip
    task = {"slug": "squares", "kind": "segmentation", "classes": ["1"]}
    value: dict[str, Any] = {"members": [member], "rules": [{}], "task": task}
    value["data"] = data_hash(session.workspace.data("squares"))
    path = session.workspace.ensembles("squares") / f"{name}.json"
    durable.write_json(path, value)
    return path


def test_a_run_is_named_by_its_teacher(session, ask) -> None:
    write_ensemble(session, "three", (0, 1))
    assert {job.run for job in ask(pseudo="three")} == {"tiny+pseudo=three"}
    (job,) = ask(pseudo="three", pseudo_share="0.25", fold="1")
    assert job.run == "tiny+pseudo=three+pseudo_share=0.25"
    assert "pseudo=three" in job.words


def test_every_fault_of_a_sweep_comes_before_it_begins(session, ask) -> None:
    write_ensemble(session, "half", (0,))
    with pytest.raises(UsageError) as caught:
        ask(pseudo="half,thre")
    assert "no model of ensemble 'half' held out fold 1" in caught.value.message
    assert "there is no ensemble 'thre'" in caught.value.message
    assert ask(pseudo="half", fold="0")


def test_the_default_is_made_once_and_then_taken_as_it_is(session, ask, monkeypatch) -> None:
    made: list[str] = []

    def ensure(session: Session, known: Any, *, name: str = "default") -> None:
        made.append(name)
        write_ensemble(session, name, (0, 1))

    monkeypatch.setattr(ensemble, "ensure", ensure)
    for _ in range(2):
        ask(pseudo="default")
    assert made == ["default"]


def test_a_begun_run_needs_its_ensemble_no_more(session, ask) -> None:
    path = write_ensemble(session, "gone", (0, 1))
    (job,) = ask(pseudo="gone", fold="0")
    durable.write_json(job.folder / "pseudo.json", {"store": "gone-fold0-12345678"})
    path.unlink()
    assert ask(pseudo="gone", fold="0")
    with pytest.raises(UsageError, match="no ensemble 'gone'"):
        ask(pseudo="gone", fold="1")


def test_nobody_is_asked_where_nobody_teaches(ask, monkeypatch) -> None:
    monkeypatch.setattr(ensemble, "ensure", None)
    assert ask()


def test_the_store_is_listed_where_people_find_it(session) -> None:
    from kagflow.learn import pseudo as stage

    run = session.workspace.runs("squares") / "tiny" / "fold0"
    assert stage.stores(run) == session.workspace.home / "pseudo" / "squares"
    assert stage.noted_store(run) is None
    durable.write_json(run / "pseudo.json", {"store": "x"})
    assert stage.noted_store(run) == session.workspace.home / "pseudo" / "squares" / "x"
    assert json.loads((run / "pseudo.json").read_text()) == {"store": "x"}

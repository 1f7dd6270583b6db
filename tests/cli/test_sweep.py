"""Many jobs: which are meant, what happens past a failure, what is told at the end."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from kagflow.cli import competitions, notify, sweep
from kagflow.cli.jobs import Job, plan
from kagflow.cli.session import Session
from kagflow.errors import DataError, UsageError
from kagflow.output import Output
from kagflow.workspace import Workspace


@pytest.fixture
def session(tmp_path: Path) -> Session:
    """Return a workspace with a competition of two folds and two recipes."""
    folder = tmp_path / "competitions" / "squares"
    (folder / "recipes").mkdir(parents=True)
    config = "slug: squares\ntitle: Squares\nclasses: ['1']\ndefault_recipe: tiny\n"
    (folder / "competition.yaml").write_text(config)
    for name in ("tiny", "other"):
        (folder / "recipes" / f"{name}.yaml").write_text("model: {target: smp}\nepochs: 2\n")
    data = tmp_path / "data" / "squares"
    data.mkdir(parents=True)
    (data / "manifest.json").write_text("{}")
    (data / "folds.csv").write_text("image_id,cluster,fold\na.png,0,0\nb.png,1,1\n")
    return Session(Output(), Workspace(tmp_path, "kaggle"))


@pytest.fixture
def known(session: Session, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setattr(sys, "path", list(sys.path))
    return competitions.find(session.workspace, "squares")


def test_a_sweep_is_recipes_times_keys_times_folds(session: Session, known: Any) -> None:
    words = {"fold": "all", "recipe": "tiny,other", "optimiser.lr": "1e-3,3e-4"}
    jobs = plan(session, known, words)
    assert [(job.run, job.fold) for job in jobs] == [
        (f"{recipe}+optimiser.lr={lr}", fold)
        for fold in (0, 1) for recipe in ("tiny", "other") for lr in ("1e-3", "3e-4")
    ]  # fmt: skip
    assert jobs[0].folder == session.workspace.runs("squares") / "tiny+optimiser.lr=1e-3" / "fold0"
    again = plan(session, known, dict(word.split("=", 1) for word in jobs[3].words))
    assert [(one.folder, one.recipe) for one in again] == [(jobs[3].folder, jobs[3].recipe)]


def test_equal_values_are_trained_once(session: Session, known: Any) -> None:
    jobs = plan(session, known, {"fold": "0", "optimiser.lr": "1e-3,0.001,1.0e-3"})
    assert [job.run for job in jobs] == ["tiny+optimiser.lr=1e-3"]


def test_everything_and_folds_may_be_asked_for_together(session: Session, known: Any) -> None:
    jobs = plan(session, known, {"fold": "all,full"})
    assert [job.fold for job in jobs] == [0, 1, "full"]
    assert jobs[2].folder.name == "full"


def test_all_faults_are_told_at_once_and_each_once(session: Session, known: Any) -> None:
    words = {"fold": "0,9,x", "recipe": "tiny,tny", "epoch": "3", "optimiser.lr": "-1,1e-3"}
    with pytest.raises(UsageError) as caught:
        plan(session, known, words)
    told = caught.value.message
    for fault in ("fold=9", "fold=x", "tny.yaml", "unknown key 'epoch'", "'optimiser.lr'"):
        assert told.count(fault) >= 1
    assert told.count("fold=9") == 1


def test_one_name_for_two_recipes_is_a_fault(session: Session, known: Any) -> None:
    with pytest.raises(UsageError, match="name=mine would be two recipes"):
        plan(session, known, {"fold": "0", "name": "mine", "optimiser.lr": "1e-3,3e-4"})
    assert len(plan(session, known, {"fold": "all", "name": "mine"})) == 2


def jobs_of(count: int) -> list[Job]:
    recipe: Any = None
    return [Job(f"run{at}", at, recipe, Path(f"run{at}")) for at in range(count)]


def done(job: Job) -> dict[str, Any]:
    return {"run": job.run, "finished": True}


def test_a_sweep_goes_on_past_any_error_and_names_it() -> None:
    errors = {"run0": DataError("no", hint="why"), "run2": ZeroDivisionError("a plug-in's")}

    def train(job: Job) -> dict[str, Any]:
        if job.run in errors:
            raise errors[job.run]
        return done(job)

    outcome = sweep.run(jobs_of(4), train)
    assert [one["run"] for one in outcome.finished] == ["run1", "run3"]
    first, second = outcome.failed
    assert (first.error, first.hint, first.exit_code, first.trace) == ("no", "why", 6, "")
    assert second.error.startswith("ZeroDivisionError: a plug-in's (")
    assert "test_sweep.py:" in second.error
    assert "Traceback" in second.trace
    assert (second.exit_code, outcome.status) == (1, "failed")


def test_a_lone_jobs_error_is_raised_as_it_is() -> None:
    with pytest.raises(ZeroDivisionError):
        sweep.run(jobs_of(1), lambda job: 1 / 0)


def test_ctrl_c_ends_the_sweep_and_says_what_remains() -> None:
    def train(job: Job) -> dict[str, Any]:
        if job.run == "run1":
            raise KeyboardInterrupt
        return done(job)

    outcome = sweep.run(jobs_of(3), train)
    assert [job.run for job in outcome.left] == ["run1", "run2"]
    assert (outcome.interrupted, outcome.status) == (True, "stopped")


def test_nothing_is_begun_when_the_budget_is_spent() -> None:
    asked = iter([False, True])
    outcome = sweep.run(jobs_of(3), done, spent=lambda: next(asked))
    assert len(outcome.finished) == 1
    assert [job.run for job in outcome.left] == ["run1", "run2"]
    assert outcome.status == "stopped"


SCRIPT = """
import json, os, sys
told = json.load(open(os.environ["KAGFLOW_RESULT"]))
open(sys.argv[1], "w").write(os.environ["KAGFLOW_STATUS"] + " " + json.dumps(told))
sys.exit(int(sys.argv[2]))
"""


def test_the_users_command_learns_how_it_ended(
    session: Session, known: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    script = tmp_path / "tell it.py"
    script.write_text(SCRIPT)
    seen = tmp_path / "seen"
    command = f"'{sys.executable}' '{script}' '{seen}' 3"
    with notify.on_done(session, known, command) as ended:
        ended.value, ended.status = {"runs": [1]}, "finished"
    status, _, told = seen.read_text().partition(" ")
    assert (status, json.loads(told)["runs"]) == ("finished", [1])
    assert "warning: on_done" in capsys.readouterr().err
    with pytest.raises(DataError), notify.on_done(session, known, command):
        raise DataError("broken", hint="mend")
    status, _, told = seen.read_text().partition(" ")
    assert (status, json.loads(told)["error"]) == ("failed", "broken")
    with pytest.raises(KeyboardInterrupt), notify.on_done(session, known, command):
        raise KeyboardInterrupt
    assert seen.read_text().startswith("stopped ")


@pytest.mark.parametrize("command", ["no-such-program-anywhere x", "'unclosed", " "])
def test_a_command_that_cannot_run_is_told_before_anything(
    session: Session, known: Any, command: str
) -> None:
    with pytest.raises(UsageError, match="on_done="), notify.on_done(session, known, command):
        pytest.fail("begun")

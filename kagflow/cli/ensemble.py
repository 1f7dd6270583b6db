"""kagflow ensemble: join finished runs, tune their thresholds, say what they are worth."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from kagflow import durable
from kagflow.cli import competitions
from kagflow.cli.competitions import Known
from kagflow.cli.session import Session, guarded, open_session
from kagflow.errors import UsageError
from kagflow.naming import FULL, Fold, fold_folder, fold_order

DEFAULT = "default"


@guarded
def command(
    context: typer.Context,
    words: Annotated[list[str] | None, typer.Argument(metavar="[COMPETITION] [RUN]...")] = None,
    name: Annotated[str, typer.Option(help="The ensemble's name.")] = DEFAULT,
) -> None:
    """Average finished runs (all, or the named ones) and tune post-processing out of fold."""
    session = open_session(context)
    given = list(words or [])
    first = given.pop(0) if given and given[0] in competitions.folders(session.workspace) else None
    known = competitions.find(session.workspace, first)
    value = make(session, known, runs=given or None, name=name)
    session.out.table(f"ensemble {name}", ("", ""), describe(value))
    session.out.result(
        {"ensemble": str(path(session, known, name)), **value},
        f"next: {session.command('submit --dry-run')}",
    )


def make(
    session: Session, known: Known, *, runs: list[str] | None = None, name: str = DEFAULT
) -> dict[str, Any]:
    """Build an ensemble of finished runs and write it.

    Raises UsageError where no run has finished, or a named one is missing.
    """
    from kagflow.learn import perimage
    from kagflow.learn.ensemble import build_ensemble

    chosen = _chosen(session, known, runs)
    built = build_ensemble(
        chosen,
        known.config.task(),
        session.workspace.data(known.name),
        home=session.workspace.home,
        name=name,
        progress=session.out.progress(),
    )
    file = path(session, known, name)
    # The images first: an ensemble that is there has them beside it.
    perimage.write(perimage.path_beside(file), built.images)
    durable.write_json(file, built.value)
    return built.value


def ensure(session: Session, known: Known, *, name: str = DEFAULT) -> dict[str, Any]:
    """Return the named ensemble; the default one is made anew where the runs have changed."""
    file = path(session, known, name)
    if name != DEFAULT:
        if not file.is_file():
            raise UsageError(f"no ensemble '{name}'", hint=f"kagflow ensemble --name {name}")
        return dict(json.loads(file.read_text()))
    finished = finished_runs(session, known)
    joined = compatible(session, known, finished)
    if file.is_file():
        value = dict(json.loads(file.read_text()))
        if value["considered"] == joined:
            return value
    if joined:
        names = ", ".join(f"{run} (folds {_list(folds)})" for run, folds in joined.items())
        session.out.say(f"no ensemble of these runs yet: making '{name}' from {names}")
    left = sorted(set(finished) - set(joined))
    if left:
        session.out.say(f"left out, no fold in common with them: {', '.join(left)}")
    return make(session, known, runs=list(joined) or None, name=name)


def compatible(
    session: Session, known: Known, finished: dict[str, list[Fold]]
) -> dict[str, list[Fold]]:
    """Return the runs that can be judged together: all share a fold.

    A training on everything is no fold. Runs that predict what the task asks for come first, then
    those with more folds.
    """
    wanted = "mask" if known.config.kind == "segmentation" else "label"
    runs = session.workspace.runs(known.name)
    predicts = {
        run: json.loads((runs / run / fold_folder(folds[0]) / "run.json").read_text())["predicts"]
        for run, folds in finished.items()
    }
    order = sorted(finished, key=lambda run: (predicts[run] != wanted, -len(finished[run]), run))
    chosen: dict[str, list[Fold]] = {}
    common: set[Fold] = set()
    for run in order:
        own = set(finished[run]) - {FULL}
        shared = common & own if chosen else own
        if shared:
            chosen[run], common = finished[run], shared
    return dict(sorted(chosen.items()))


def finished_runs(session: Session, known: Known) -> dict[str, list[Fold]]:
    """Return each run's finished folds, by run name; a training on everything comes last."""
    found: dict[str, list[Fold]] = {}
    runs = session.workspace.runs(known.name)
    for file in sorted([*runs.glob("*/fold*/run.json"), *runs.glob(f"*/{FULL}/run.json")]):
        run = file.parent.parent.name
        found.setdefault(run, []).append(json.loads(file.read_text())["fold"])
    return {run: sorted(folds, key=fold_order) for run, folds in found.items()}


def path(session: Session, known: Known, name: str) -> Path:
    """Return the file of a named ensemble."""
    return session.workspace.ensembles(known.name) / f"{name}.json"


def describe(value: dict[str, Any]) -> list[tuple[str, str]]:
    """Return an ensemble's headline as rows."""
    cv = value["cv"]
    members = ", ".join(f"{one['run']} (folds {_list(one['folds'])})" for one in value["members"])
    crossfitted = cv["crossfitted"]
    return [
        ("members", members),
        ("images", f"{cv['images']} of {cv['of']}"),
        ("CV", "-" if crossfitted is None else f"{crossfitted:.4f}"),
        ("what it is", cv["label"]),
        ("tuned on the same images", f"{cv['naive']:.4f}"),
        ("default thresholds", f"{cv['default']:.4f}"),
        ("all-empty floor", f"{cv['floor']:.4f}"),
    ]


def _chosen(session: Session, known: Known, runs: list[str] | None) -> dict[str, list[Path]]:
    finished = finished_runs(session, known)
    missing = [run for run in runs or [] if run not in finished]
    if missing or not finished:
        what = f"no finished run '{', '.join(missing)}'" if missing else "there is no finished run"
        raise UsageError(what, hint=f"kagflow train {known.name} fold=0")
    folder = session.workspace.runs(known.name)
    return {
        run: [folder / run / fold_folder(fold) for fold in folds]
        for run, folds in finished.items()
        if runs is None or run in runs
    }


def _list(folds: Sequence[Fold]) -> str:
    return ",".join(map(str, folds))

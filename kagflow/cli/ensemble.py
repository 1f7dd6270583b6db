"""kagflow ensemble: join finished runs, tune their thresholds, say what they are worth."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from kagflow import durable
from kagflow.cli import competitions, ensemble_tables
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
    minutes: Annotated[
        float | None, typer.Option(help="The most that the test set may take, as measured.", min=0)
    ] = None,
    complete: Annotated[bool, typer.Option(help="Refuse runs that lack a fold.")] = False,
) -> None:
    """Choose among finished runs (all, or the named ones) and tune post-processing out of fold.

    Every figure comes three times: naive, on the images it was tuned on; cross-fitted, on images
    that took no part in any choice, which is the one to believe; and at default thresholds.
    """
    session = open_session(context)
    given = list(words or [])
    first = given.pop(0) if given and given[0] in competitions.folders(session.workspace) else None
    known = competitions.find(session.workspace, first)
    value = make(session, known, runs=given or None, name=name, minutes=minutes, complete=complete)
    ensemble_tables.show(session.out, value)
    session.out.result(
        {"ensemble": str(path(session, known, name)), **value},
        f"next: {session.command('submit --dry-run')}",
    )


def make(
    session: Session,
    known: Known,
    *,
    runs: list[str] | None = None,
    name: str = DEFAULT,
    minutes: float | None = None,
    complete: bool = False,
) -> dict[str, Any]:
    """Build an ensemble of finished runs and write it.

    Raises UsageError where no run has finished, or a named one is missing.
    """
    from kagflow.learn import perimage
    from kagflow.learn.ensemble import Wish, build_ensemble

    chosen = _chosen(session, known, runs)
    images = _test_images(session, known)
    if minutes is not None and images is None:
        raise UsageError(
            "--minutes needs to know how many images the test has",
            hint="set limits.hidden_images in competition.yaml",
        )
    built = build_ensemble(
        chosen,
        known.config.task(),
        session.workspace.data(known.name),
        home=session.workspace.home,
        wish=Wish(name, minutes, images, complete),
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


def _test_images(session: Session, known: Known) -> int | None:
    """Return how many images the kernel will meet, as the competition says or as many as here."""
    from kagflow.task.submission import expected_keys
    from kagflow.task.table import read_table

    limits, spec = known.config.limits, known.config.task()
    if limits.hidden_images or limits.public_images:
        return max(limits.hidden_images or 0, limits.public_images or 0)
    sample = session.workspace.data(known.name) / spec.sample_submission
    if not sample.is_file():
        return None
    return len({image_id for image_id, _ in expected_keys(read_table(sample), spec)})


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

"""kagflow train: train folds of recipes, one run folder each."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from kagflow.cli import competitions, words
from kagflow.cli.competitions import Known
from kagflow.cli.session import Session, guarded, open_session
from kagflow.errors import KagflowError, UsageError
from kagflow.workspace import user_state

if TYPE_CHECKING:
    from kagflow.config import Recipe


@dataclass(frozen=True)
class Job:
    """One fold of one recipe to train."""

    run: str
    fold: int
    recipe: Recipe
    folder: Path


@guarded
def command(
    context: typer.Context,
    given: Annotated[
        list[str] | None, typer.Argument(metavar="[COMPETITION] [KEY=VALUE]...")
    ] = None,
    device: Annotated[str, typer.Option(help="auto, cpu or cuda.")] = "auto",
) -> None:
    """Train: fold=0 (or 0,1 or all), recipe=NAME, any recipe key; commas sweep."""
    session = open_session(context)
    said = words.split(given or [])
    known = competitions.find(session.workspace, said.competition)
    jobs = plan(session, known, said.overrides)
    results, failed = [], []
    for job in jobs:
        try:
            results.append(train(session, known, job, device=device))
        except KagflowError as error:
            if len(jobs) == 1:
                raise
            failed.append((job, error))
    report(session, results, failed)


def plan(session: Session, known: Known, overrides: dict[str, str]) -> list[Job]:
    """Return the folds to train, every fault of every recipe found before the first starts.

    Raises UsageError for a fold out of range, an unknown recipe or a wrong key.
    """
    manifest = competitions.manifest(session.workspace, known)
    folds = fold_count(session, known)
    mini = known.config.mini if manifest.get("generated") else None
    default = mini.recipe if mini else known.config.default_recipe
    settings = {"fold": "all", "recipe": default} | overrides
    if settings["fold"] == "all":
        settings["fold"] = ",".join(map(str, range(folds)))
    name = settings.pop("name", None)
    return [_job(session, known, one, name=name, folds=folds) for one in words.sweep(settings)]


def fold_count(session: Session, known: Known) -> int:
    """Return the number of folds that the fetched data was cut into."""
    from kagflow.task.folds import read_folds

    folds = read_folds(session.workspace.data(known.name) / "folds.csv")
    return 1 + max(fold for _, fold in folds.values())


def train(session: Session, known: Known, job: Job, *, device: str = "auto") -> dict[str, Any]:
    """Train one job, or say that it is already finished; return its run.json."""
    from kagflow.learn.train import train_fold

    session.out.say(f"train {job.run} fold {job.fold}")
    with _ledger(session, known, job, device):
        result = train_fold(
            job.folder,
            job.recipe.model_dump(mode="json"),
            known.config.task(),
            session.workspace.data(known.name),
            fold=job.fold,
            device=device,
            progress=session.out.progress(),
        )
    return {"run": job.run, "fold": job.fold, **result.summary()}


def report(
    session: Session, results: list[dict[str, Any]], failed: list[tuple[Job, KagflowError]]
) -> None:
    """Print what was trained and what failed; ends with the first failure's exit code."""
    rows = [
        (
            one["run"],
            one["fold"],
            one["images"],
            f"{one['score']:.4f}",
            f"{one['floor']:.4f}",
            f"{one['seconds']:.0f}",
        )
        for one in results
    ]
    columns = ("run", "fold", "images", "score (one fold, untuned)", "all-empty", "seconds")
    session.out.table("trained", columns, rows)
    faults = [{"run": job.run, "fold": job.fold, "error": error.message} for job, error in failed]
    next_command = session.command("submit --dry-run")
    session.out.result(
        {"runs": results, "failed": faults, "next": next_command},
        f"next: {next_command}" if results else "",
    )
    if failed:
        session.out.warn(f"{len(failed)} of {len(failed) + len(results)} runs failed:")
        for job, error in failed:
            session.out.warn(f"{job.run} fold {job.fold}: {error.message} {error.hint}")
        raise typer.Exit(failed[0][1].exit_code)


@contextlib.contextmanager
def _ledger(session: Session, known: Known, job: Job, device: str) -> Iterator[None]:
    """Note in the ledger how long a training took, also one that was stopped."""
    from kagflow.ship import hours
    from kagflow.ship.records import HoursRow, Records, now

    if (job.folder / "run.json").is_file():
        yield
        return
    records = Records(user_state())
    row = hours.begin(
        records,
        HoursRow(
            profile=session.workspace.profile,
            account="",
            kind="train",
            competition=known.name,
            subject=f"{job.run}/fold{job.fold}",
            place="local",
            accelerator=device,
            started=now(),
        ),
    )
    try:
        yield
    finally:
        hours.end(records, row)


def _job(
    session: Session, known: Known, settings: dict[str, str], *, name: str | None, folds: int
) -> Job:
    from kagflow.config import load_recipe

    fold, recipe_name = settings["fold"], settings["recipe"]
    if not fold.isdigit() or int(fold) >= folds:
        raise UsageError(
            f"fold={fold} is out of range", hint=f"folds are 0 to {folds - 1}, or fold=all"
        )
    changes = [f"{key}={value}" for key, value in settings.items() if key not in ("fold", "recipe")]
    recipe = load_recipe(known.folder / "recipes" / f"{recipe_name}.yaml", changes)
    run = name or "+".join([recipe_name, *changes]).replace("/", "_").replace(" ", "")
    folder = session.workspace.runs(known.name) / run / f"fold{fold}"
    return Job(run, int(fold), recipe, folder)

"""Which folds of which recipes a `kagflow train` means, all faults found before any starts."""

from __future__ import annotations

from dataclasses import dataclass
from functools import reduce
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kagflow import naming
from kagflow.cli import competitions, words
from kagflow.cli.competitions import Known
from kagflow.cli.session import Session
from kagflow.errors import UsageError

if TYPE_CHECKING:
    from kagflow.config import Recipe
    from kagflow.naming import Fold

NOT_THE_RECIPE = ("fold", "recipe", "name")


@dataclass(frozen=True)
class Job:
    """One fold of one recipe to train; `words` say the same to `kagflow train`."""

    run: str
    fold: Fold
    recipe: Recipe
    folder: Path
    words: tuple[str, ...] = ()

    @property
    def label(self) -> str:
        """The job as messages name it."""
        return f"{self.run} {'on everything' if self.fold == naming.FULL else f'fold {self.fold}'}"


def fetched(session: Session, known: Known) -> bool:
    """Tell whether there is data to train on."""
    return (session.workspace.data(known.name) / "manifest.json").is_file()


def plan(
    session: Session, known: Known, overrides: dict[str, str], *, unfetched: bool = False
) -> list[Job]:
    """Return the jobs in the order of the words, each once.

    Without data they are those of competition.yaml where `unfetched` allows it. Raises UsageError
    listing every fault: folds out of range, unknown recipes, wrong keys and values, and one name
    for two recipes.
    """
    if unfetched and not fetched(session, known):
        manifest, folds = dict[str, Any](), known.config.folds
    else:
        manifest = competitions.manifest(session.workspace, known)
        folds = fold_count(session, known)
    mini = known.config.mini if manifest.get("generated") else None
    default = mini.recipe if mini else known.config.default_recipe
    settings = {"fold": "all", "recipe": default} | overrides
    every = ",".join(map(str, range(folds)))
    settings["fold"] = ",".join(
        every if one == "all" else one for one in words.options(settings["fold"])
    )
    name = settings.pop("name", None)
    made: dict[Path, Job] = {}
    faults: dict[str, UsageError] = {}
    for one in words.sweep(settings):
        try:
            job = _job(session, known, one, name=name, folds=folds)
            _same(made.setdefault(job.folder, job), job)
        except UsageError as error:
            faults.setdefault(error.message, error)
    raise_all(list(faults.values()))
    return list(made.values())


def fold_count(session: Session, known: Known) -> int:
    """Return the number of folds that the fetched data was cut into."""
    from kagflow.task.folds import read_folds

    folds = read_folds(session.workspace.data(known.name) / "folds.csv")
    return 1 + max(fold for _, fold in folds.values())


def _same(before: Job, job: Job) -> None:
    if before.recipe != job.recipe:
        raise UsageError(
            f"name={job.run} would be two recipes", hint="sweep without name=, or one by one"
        )


def raise_all(faults: list[UsageError]) -> None:
    """Raise one UsageError that lists all faults; nothing where there are none."""
    if len(faults) == 1:
        raise faults[0]
    if faults:
        lines = "".join(f"\n  {error.message}\n    -> {error.hint}" for error in faults)
        raise UsageError(f"{len(faults)} faults, nothing was begun:{lines}", hint="mend them all")


def _job(
    session: Session, known: Known, settings: dict[str, str], *, name: str | None, folds: int
) -> Job:
    from kagflow.config import load_recipe

    fold, recipe_name = _fold(settings["fold"], folds), settings["recipe"]
    changes = {key: text for key, text in settings.items() if key not in NOT_THE_RECIPE}
    typed = [f"{key}={text}" for key, text in changes.items()]
    recipe = load_recipe(known.folder / "recipes" / f"{recipe_name}.yaml", typed)
    values = recipe.model_dump(mode="json")
    given = {key: _value(values, key) for key in changes}
    run = naming.run_name(recipe_name, given) if name is None else naming.given_name(name)
    folder = session.workspace.runs(known.name) / run / naming.fold_folder(fold)
    spoken = (f"recipe={recipe_name}", f"fold={fold}", *typed, f"name={run}")
    return Job(run, fold, recipe, folder, spoken)


def _fold(text: str, folds: int) -> Fold:
    if text == naming.FULL:
        return naming.FULL
    if not (text.isascii() and text.isdigit()) or int(text) >= folds:
        raise UsageError(
            f"fold={text} is out of range",
            hint=f"folds are 0 to {folds - 1}, fold=all, or fold=full to train on everything",
        )
    return int(text)


def _value(values: dict[str, Any], key: str) -> Any:
    """Look a dotted key up in the checked recipe, so that one value has one spelling."""
    found: Any = reduce(lambda section, part: section[part], key.split("."), values)
    return found

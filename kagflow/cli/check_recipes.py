"""Tell everything that is wrong with recipes and competition.yaml, by file, line and key."""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from kagflow.cli import competitions, words
from kagflow.cli.session import Session
from kagflow.errors import UsageError

if TYPE_CHECKING:
    from kagflow.config import Competition, Recipe
    from kagflow.resolve import Fault
    from kagflow.task.spec import TaskSpec

COMPETITION = "competition.yaml"
# What a generator of look-alike data is called with.
MINI = ("out", "seed", "progress")


@dataclass(frozen=True)
class Wanted:
    """What was asked for: recipes by name, all where none is named, and overrides for them."""

    competition: str | None
    recipes: tuple[str, ...]
    overrides: Mapping[str, str]


@dataclass(frozen=True)
class Located:
    """A fault and where it stands: a file within the competition, or an override; its line."""

    file: str
    line: int | None
    fault: Fault

    def told(self) -> dict[str, Any]:
        """Return plain JSON values."""
        return {"file": self.file, "line": self.line, **asdict(self.fault)}

    def text(self) -> str:
        """Return the lines that people read."""
        place = self.file if self.line is None else f"{self.file}:{self.line}"
        key = f"  {self.fault.key}" if self.fault.key else ""
        lines = [f"{place}{key}", *(f"    {one}" for one in self.fault.what.splitlines())]
        lines += [f"    | {one}" for one in self.fault.trace]
        return "\n".join([*lines, *([f"    -> {self.fault.mend}"] if self.fault.mend else [])])


@dataclass(frozen=True)
class Sound:
    """A recipe without a fault, with its overrides laid over it."""

    name: str
    recipe: Recipe
    changes: Mapping[str, str]


@dataclass(frozen=True)
class Place:
    """A competition's folder; `config` is None where its own file is faulty."""

    name: str
    folder: Path
    config: Competition | None
    faults: tuple[Fault, ...] = ()

    @property
    def task(self) -> TaskSpec:
        """What recipes are checked against; one class where the competition cannot be read."""
        from kagflow.task.spec import TaskSpec

        blank = TaskSpec(self.name, "segmentation", ("1",))
        return self.config.task() if self.config else blank

    @property
    def recipes(self) -> list[str]:
        """Every recipe by name."""
        return sorted(file.stem for file in (self.folder / "recipes").glob("*.yaml"))


def find(session: Session, name: str | None) -> Place:
    """Find a competition even where its own file is faulty."""
    from kagflow.config import Competition
    from kagflow.overrides import examine

    try:
        known = competitions.find(session.workspace, name)
    except UsageError:
        meant = name or session.workspace.active() or ""
        folder = competitions.folders(session.workspace).get(meant)
        if folder is None:
            raise
        _, faults = examine(folder / COMPETITION, Competition)
        if not faults:
            raise
        return Place(meant, folder, None, tuple(faults))
    return Place(known.name, known.folder, known.config)


def check(session: Session, wanted: Wanted, *, quiet: bool = False) -> list[Sound]:
    """Check what was asked for and say what came of it; return the sound recipes.

    Leaves with exit code 2 where anything is faulty. `quiet` says nothing of what is sound.
    """
    place = _place(session, wanted)
    names = _names(place, wanted)
    bars = session.out.progress()
    # The first recipe loads the libraries.
    bars.start("check recipes", len(names), "recipes")
    whole = not wanted.recipes and not wanted.overrides
    found = list(_competition(place)) if whole or place.config is None else []
    sound: list[Sound] = []
    for name in names:
        for changes in words.sweep(dict(wanted.overrides)):
            recipe, faults = _recipe(place, name, changes)
            found += [one for one in faults if one not in found]
            if recipe is not None and not faults:
                sound.append(Sound(name, recipe, changes))
        bars.advance()
    bars.finish()
    checked = [*([COMPETITION] if whole else []), *(f"recipes/{n}.yaml" for n in names)]
    value = {"competition": place.name, "checked": checked, "faults": [one.told() for one in found]}
    if found:
        _leave(session, place, value, found)
    if not quiet:
        session.out.result(value, f"{place.name}: {_counted(checked)} without a fault")
    return sound


def _place(session: Session, wanted: Wanted) -> Place:
    """Find the competition; raises UsageError where one is named in a recipe's place."""
    known = competitions.folders(session.workspace)
    meant = next((one for one in wanted.recipes if one in known), None)
    instead = UsageError(
        f"'{meant}' is a competition, and check takes recipes",
        hint=f"kagflow check --competition {meant}",
    )
    try:
        place = find(session, wanted.competition)
    except UsageError:
        if meant is None:
            raise
        raise instead from None
    if meant is not None and meant not in place.recipes:
        raise instead
    return place


def _leave(session: Session, place: Place, value: dict[str, Any], found: Sequence[Located]) -> None:
    count = "1 fault" if len(found) == 1 else f"{len(found)} faults"
    error = UsageError(
        f"{place.name}: {count} in {_counted(sorted({one.file for one in found}))}",
        hint=f"mend them in {place.folder}, or in the words of the command",
    )
    told = {"error": error.message, "hint": error.hint, "exit_code": error.exit_code}
    session.out.result(value | told, "\n".join(one.text() for one in found))
    if not session.out.json_mode:
        session.out.error(error)
    raise typer.Exit(error.exit_code)


def _counted(files: Sequence[str]) -> str:
    return files[0] if len(files) == 1 else f"{len(files)} files"


def _names(place: Place, wanted: Wanted) -> list[str]:
    """Return the recipes that are meant; a path of one will do.

    Raises UsageError where there is none.
    """
    given = [Path(one).stem if one.endswith((".yaml", ".yml")) else one for one in wanted.recipes]
    if given:
        return list(dict.fromkeys(given))
    if wanted.overrides and place.config is not None:
        return [place.config.default_recipe]
    if not place.recipes:
        hint = f"write {place.folder}/recipes/base.yaml"
        raise UsageError(f"{place.name} has no recipe", hint=hint)
    return place.recipes


def _recipe(
    place: Place, name: str, changes: Mapping[str, str]
) -> tuple[Recipe | None, list[Located]]:
    from kagflow import config, overrides
    from kagflow.learn.check import recipe_faults
    from kagflow.resolve import Fault
    from kagflow.yaml_file import key_lines

    path = place.folder / "recipes" / f"{name}.yaml"
    file = f"recipes/{path.name}"
    if not path.is_file():
        near = difflib.get_close_matches(name, place.recipes, n=1)
        mend = f"did you mean '{near[0]}'? " if near else ""
        mend += f"there are: {', '.join(place.recipes)}"
        return None, [Located(file, None, Fault("", f"no recipe '{name}'", mend))]
    typed = [f"{key}={text}" for key, text in changes.items()]
    try:
        recipe, faults = overrides.examine(path, config.Recipe, typed)
    except UsageError as error:
        return None, [Located(file, None, Fault("", error.message, error.hint))]
    if recipe is not None:
        faults += recipe_faults(recipe.model_dump(mode="json"), place.task)
    lines = key_lines(path)
    located = [_locate(one, file, lines, changes) for one in faults]
    return recipe, sorted(located, key=lambda one: one.line or 0)


def _locate(
    fault: Fault, file: str, lines: Mapping[str, int], changes: Mapping[str, str]
) -> Located:
    for key, text in changes.items():
        if f"{fault.key}.".startswith(f"{key}."):
            return Located(f"{key}={text}", None, fault)
    parts = fault.key.split(".")
    above = (".".join(parts[:count]) for count in range(len(parts), 0, -1))
    return Located(file, next((lines[key] for key in above if key in lines), None), fault)


def _competition(place: Place) -> Iterator[Located]:
    from kagflow.learn import check
    from kagflow.resolve import Fault
    from kagflow.yaml_file import key_lines

    faults = list(place.faults)
    if place.config is not None:
        faults += check.metric_faults(place.task)
        named = {"default_recipe": place.config.default_recipe}
        if mini := place.config.mini:
            faults += check.target_faults("mini.generate", mini.generate, MINI)
            named |= {"mini.recipe": mini.recipe} | ({"mini.gate": mini.gate} if mini.gate else {})
        for key, name in named.items():
            if name not in place.recipes:
                mend = f"there are: {', '.join(place.recipes)}"
                faults.append(Fault(key, f"no recipe '{name}'", mend))
    lines = key_lines(place.folder / COMPETITION)
    for one in faults:
        yield _locate(one, COMPETITION, lines, {})

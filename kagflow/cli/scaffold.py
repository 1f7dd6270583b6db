"""Write a new competition's folder: from the template, with the recipes and code of another."""

from __future__ import annotations

import ast
import re
import shutil
from pathlib import Path

from kagflow import durable, resources
from kagflow.cli.competitions import Known

YAML, CODE = "competition.yaml", (".py", ".yaml")


def write(folder: Path, name: str, source: Known | None) -> list[str]:
    """Write the folder, whole or not at all; return its files, relative to it.

    Of `source` come recipes and code, with its name in targets, imports and commands put right;
    what it says of its own data, its log and its generator of look-alike data stay behind.
    """
    template = resources.templates() / "competition"
    with durable.staging(folder) as beside:
        shutil.copytree(
            template, beside, dirs_exist_ok=True, ignore=shutil.ignore_patterns("__pycache__")
        )
        text = (beside / YAML).read_text()
        # Comments stay in their column.
        text = re.sub(r"NAME +(?=#)", lambda found: f"{name} ".ljust(len(found[0])), text)
        text = text.replace("NAME", name)
        if source is not None:
            shutil.rmtree(beside / "recipes")
            _copy(source, beside, name)
            text = _described_like(source, text)
        (beside / YAML).write_text(text)
    return sorted(str(file.relative_to(folder)) for file in folder.rglob("*") if file.is_file())


def _copy(source: Known, folder: Path, name: str) -> None:
    # As a package and in commands; prose may mean the word.
    word = re.compile(
        rf"\b{source.name}(?=\.[a-z_])|(?<=kagflow train ){source.name}\b"
        rf"|(?<=from ){source.name}(?= import)|(?<=import ){source.name}\b"
    )
    for file in sorted(source.folder.rglob("*")):
        inner = file.relative_to(source.folder)
        if file.suffix in CODE and not _its_own(source, inner) and not _prose(file):
            target = folder / inner
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_text(word.sub(name, file.read_text()))


def _its_own(source: Known, inner: Path) -> bool:
    """Tell whether a file says what only the source's data needs."""
    if inner == Path(YAML) or inner.name.startswith("."):
        return True
    mini = source.config.mini
    if mini is None:
        return False
    module = mini.generate.partition(":")[0].rpartition(".")[2]
    if inner.suffix == ".py":
        return inner.stem == module or inner.stem.startswith(f"{module}_")
    small = {mini.recipe, mini.gate} - {source.config.default_recipe}
    return inner.parent.name == "recipes" and inner.stem in small


def _prose(file: Path) -> bool:
    """Tell whether a package's file holds nothing but words on what it is."""
    if file.name != "__init__.py":
        return False
    code = ast.parse(file.read_text()).body
    return all(isinstance(one, ast.Expr) and isinstance(one.value, ast.Constant) for one in code)


def _described_like(source: Known, text: str) -> str:
    """Name the source's default recipe and what its code requires in the template's lines."""
    config = source.config
    requires = ", ".join(config.requires)
    text = re.sub(
        r"default_recipe: \S+( +# \S+)?", f"default_recipe: {config.default_recipe}", text
    )
    return re.sub(r"requires: \[\]", f"requires: [{requires}]", text)

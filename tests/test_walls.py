"""Hold the house's walls: which room may import what, and which words stay out."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "kagflow"
CORE = {file.stem for file in PACKAGE.glob("*.py")}
MAY_IMPORT = {
    "core": {"task"},  # config builds the part of a competition that travels
    "task": set(),
    "infer": {"task"},
    "learn": {"task", "infer"},
    "ship": {"task"},
    "rehearse": {"task"},
    "report": {"task", "infer", "learn"},
    "cli": {"task", "infer", "learn", "ship", "rehearse", "report"},
}
NEVER = {
    "task": {"torch", "typer", "rich", "pydantic", "yaml", "kaggle", "kagglesdk"},
    "infer": {"typer", "rich", "pydantic", "yaml", "kaggle", "kagglesdk", "albumentations"},
    "learn": {"typer", "rich", "kaggle", "kagglesdk"},
    "ship": {"torch"},
    "rehearse": {"torch", "kaggle"},
}
TRAVELS = {"errors", "resolve", "durable", "progress", "shards"}


def imports(file: Path) -> set[str]:
    found: set[str] = set()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {f"{node.module}.{alias.name}" for alias in node.names} | {node.module}
    return found


def sources() -> list[Path]:
    return sorted(PACKAGE.rglob("*.py"))


def room(file: Path) -> str:
    relative = file.relative_to(PACKAGE)
    return relative.parts[0] if len(relative.parts) > 1 else "core"


@pytest.mark.parametrize("file", sources(), ids=lambda file: str(file.relative_to(PACKAGE)))
def test_imports_go_one_way(file: Path) -> None:
    here = room(file)
    found = imports(file)
    rooms = {name.split(".")[1] for name in found if name.startswith("kagflow.")} - CORE
    strangers = {one for one in rooms if (PACKAGE / one).is_dir()} - MAY_IMPORT[here] - {here}
    assert not strangers, f"{file} imports {strangers}"
    outside = {name.split(".")[0] for name in found}
    assert not outside & NEVER.get(here, set()), f"{file} imports {outside & NEVER[here]}"


@pytest.mark.parametrize("here", ["task", "infer"])
def test_what_travels_imports_only_the_core_that_travels(here: str) -> None:
    for file in (PACKAGE / here).rglob("*.py"):
        core = {name.split(".")[1] for name in imports(file) if name.startswith("kagflow.")} & CORE
        assert core <= TRAVELS, f"{file} imports {core - TRAVELS}"


def test_only_remote_imports_kaggle_and_only_process_imports_subprocess() -> None:
    for file in sources():
        outside = {name.split(".")[0] for name in imports(file)}
        relative = file.relative_to(PACKAGE).as_posix()
        if "kaggle" in outside:
            assert relative.startswith("ship/remote"), relative
        if "subprocess" in outside:
            assert relative == "process.py", relative


def test_no_competition_is_known_by_name_or_size() -> None:
    for file in sources():
        found = re.findall(r"severstal|\b1600\b", file.read_text(), re.IGNORECASE)
        assert not found, f"{file}: {found}"


def test_every_room_says_what_it_is() -> None:
    for folder in [PACKAGE, *(one for one in PACKAGE.iterdir() if (one / "__init__.py").is_file())]:
        docstring = ast.get_docstring(ast.parse((folder / "__init__.py").read_text()))
        assert docstring, folder


def test_files_and_functions_stay_readable() -> None:
    for file in sources():
        lines = file.read_text().count("\n")
        assert lines <= 300, f"{file}: {lines} lines"
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.FunctionDef) and node.end_lineno:
                length = node.end_lineno - node.lineno + 1
                assert length <= 60, f"{file}:{node.lineno} {node.name}: {length} lines"

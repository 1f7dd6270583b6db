"""Which files of the user's own a recipe runs: its targets', and what they import beside them."""

from __future__ import annotations

import ast
import importlib.util
import sysconfig
from collections.abc import Iterator, Mapping
from importlib.machinery import ModuleSpec
from pathlib import Path
from typing import Any

_INSTALLED = tuple(Path(sysconfig.get_path(name)) for name in ("stdlib", "purelib", "platlib"))


def targets(recipe: Any) -> Iterator[str]:
    """Yield every `module:attribute` that a recipe names, at any depth."""
    if isinstance(recipe, Mapping):
        target = recipe.get("target")
        if isinstance(target, str) and ":" in target:
            yield target
        for value in recipe.values():
            yield from targets(value)
    elif isinstance(recipe, list | tuple):
        for value in recipe:
            yield from targets(value)


def files(recipe: Mapping[str, Any]) -> dict[str, Path]:
    """Return the sources of a recipe's targets, and of what these import within their package.

    The keys are paths from the package's folder on, the same on any machine. Installed packages
    count by their version alone; an import that is only made while running is not seen.
    """
    waiting = {target.partition(":")[0] for target in targets(recipe)}
    seen: set[str] = set()
    found: dict[str, Path] = {}
    while waiting:
        name = waiting.pop()
        seen.add(name)
        path = _source(name)
        if path is None:
            continue
        home = _home(name, path)
        found[path.relative_to(home.parent).as_posix()] = path
        named = _imports(path, name) | _packages(name)
        waiting |= {one for one in named - seen if _within(one, home)}
    return found


def _home(module: str, path: Path) -> Path:
    """Return the folder of a module's outermost package, its own folder where it has none."""
    depth = module.count(".") + (path.name == "__init__.py")
    return path.parents[max(depth - 1, 0)]


def _packages(module: str) -> set[str]:
    parts = module.split(".")
    return {".".join(parts[:count]) for count in range(1, len(parts))}


def _within(module: str, home: Path) -> bool:
    source = _source(module)
    return source is not None and source.is_relative_to(home)


def _source(module: str) -> Path | None:
    """Return a module's file, None for one that is missing, installed or not Python."""
    spec = _find(module)
    path = Path(spec.origin) if spec is not None and spec.origin else None
    if path is None or path.suffix != ".py" or not path.is_file():
        return None
    return None if any(path.is_relative_to(place) for place in _INSTALLED) else path


def _find(module: str) -> ModuleSpec | None:
    try:
        return importlib.util.find_spec(module)
    except (ImportError, ValueError):
        return None


def _imports(path: Path, module: str) -> set[str]:
    """Return the modules that a file names in its import statements, and what they may be."""
    package = module if path.name == "__init__.py" else module.rpartition(".")[0]
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_bytes())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                above = package.rsplit(".", node.level - 1)[0] if node.level > 1 else package
                base = ".".join(part for part in (above, node.module) if part)
            found |= {base, *(f"{base}.{alias.name}" for alias in node.names)}
    return found - {""}

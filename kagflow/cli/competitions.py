"""Find a competition by name: the workspace's own folder first, then the shipped one."""

from __future__ import annotations

import difflib
import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kagflow import resources
from kagflow.errors import UsageError
from kagflow.workspace import Workspace

if TYPE_CHECKING:
    from kagflow.config import Competition


@dataclass(frozen=True)
class Known:
    """A competition: its name on the command line, its folder and what its yaml says."""

    name: str
    folder: Path
    config: Competition


def folders(workspace: Workspace) -> dict[str, Path]:
    """Return every competition's folder by name; the workspace's own hides a shipped one."""
    found: dict[str, Path] = {}
    for place in (resources.competitions(), workspace.root / "competitions"):
        if place.is_dir():
            found |= {file.parent.name: file.parent for file in place.glob("*/competition.yaml")}
    return found


def find(workspace: Workspace, name: str | None) -> Known:
    """Return the named competition (by folder name or Kaggle slug), or the active one.

    Raises UsageError listing the nearest names, and for no name where none is active.
    """
    # Not at the top: --help would wait for it.
    from kagflow.config import load_competition

    found = folders(workspace)
    name = name or workspace.active() or _only(workspace)
    if name not in found:
        by_slug = {load_competition(folder).slug: known for known, folder in found.items()}
        if name not in by_slug:
            near = difflib.get_close_matches(name, [*found, *by_slug], n=1)
            advice = f"did you mean '{near[0]}'? " if near else ""
            raise UsageError(
                f"no competition '{name}'", hint=f"{advice}there are: {', '.join(sorted(found))}"
            )
        name = by_slug[name]
    folder = found[name]
    # Targets read `name.module:attribute`, so the folder's parent must be importable.
    if str(folder.parent) not in sys.path:
        sys.path.insert(0, str(folder.parent))
    return Known(name, folder, load_competition(folder))


def manifest(workspace: Workspace, known: Known) -> dict[str, Any]:
    """Return the data manifest of a fetched competition.

    Raises UsageError naming the command where it was not fetched.
    """
    file = workspace.data(known.name) / "manifest.json"
    if not file.is_file():
        profile = " --profile local" if workspace.profile == "local" else ""
        other = Workspace(workspace.root, "local")
        hint = f"kagflow fetch {known.name}{profile}"
        if not profile and (other.data(known.name) / "manifest.json").is_file():
            hint = f"it was fetched under --profile local: add that, or {hint}"
        raise UsageError(f"{known.name} has not been fetched", hint=hint)
    return dict(json.loads(file.read_text()))


def _only(workspace: Workspace) -> str:
    own = workspace.root / "competitions"
    names = [file.parent.name for file in own.glob("*/competition.yaml")] if own.is_dir() else []
    if len(names) == 1:
        return names[0]
    raise UsageError(
        "no competition is active here",
        hint="name one, e.g. kagflow fetch " + next(iter(sorted(folders(workspace))), "NAME"),
    )

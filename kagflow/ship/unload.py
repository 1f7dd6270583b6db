"""Make a workspace of a load, on the machine that trains.

`python -m kagflow.ship.unload LOAD WORKSPACE [--images FOLDER]`
"""

from __future__ import annotations

import argparse
import os
import shutil
import sys
from pathlib import Path, PurePosixPath

from kagflow import durable
from kagflow.errors import DataError, KagflowError
from kagflow.ship import parts
from kagflow.ship.load import LOAD


def unload(load: Path, workspace: Path, *, images: Path | None = None) -> int:
    """Put a load's files where they belong and return their number.

    `images` is the competition's own folder, whose entries are linked into the data's. Files that
    are there as they should be stay; a checkpoint that is newer there stays beside. Raises
    DataError for a damaged load.
    """
    part = parts.read_part(load, LOAD)
    for place, name in part.manifest["places"].items():
        target = _inside(workspace, place)
        target.parent.mkdir(parents=True, exist_ok=True)
        if not target.is_file() or durable.sha256_file(target) != name:
            with durable.replacing(target) as beside:
                shutil.copyfile(load / name, beside)
    if images is not None:
        link_images(images, _inside(workspace, str(part.manifest["data"])))
    return len(part.manifest["places"])


def link_images(images: Path, data: Path) -> None:
    """Show everything of a competition's folder in the data's, beside what is kagflow's own."""
    data.mkdir(parents=True, exist_ok=True)
    for entry in sorted(images.iterdir()):
        target = data / entry.name
        if not os.path.lexists(target):
            target.symlink_to(entry.resolve(), target_is_directory=entry.is_dir())


def _inside(root: Path, place: str) -> Path:
    path = PurePosixPath(place)
    if path.is_absolute() or not path.parts or ".." in path.parts:
        raise DataError(f"'{place}' leads out of the workspace")
    return root.joinpath(*path.parts)


def main(argv: list[str]) -> int:
    """Do what the command line says and return the exit code."""
    parser = argparse.ArgumentParser(prog="kagflow.ship.unload", description=__doc__)
    parser.add_argument("load", type=Path)
    parser.add_argument("workspace", type=Path)
    parser.add_argument("--images", type=Path)
    given = parser.parse_args(argv)
    try:
        count = unload(given.load, given.workspace, images=given.images)
    except KagflowError as error:
        sys.stderr.write(f"error: {error.message}\n")
        return error.exit_code
    sys.stdout.write(f"{count} files in {given.workspace}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

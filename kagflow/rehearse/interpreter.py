"""Where the base Python lives: what of it a sandbox shows, masks and writes to."""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from pathlib import Path

from kagflow import process
from kagflow.errors import LocalError

_ASK = """
import json, site, sys, sysconfig
paths = sysconfig.get_paths()
print(json.dumps({
    "prefixes": [sys.base_prefix, sys.base_exec_prefix],
    "stdlib": paths["stdlib"],
    "scripts": paths["scripts"],
    "purelib": paths["purelib"],
    "sites": [paths["purelib"], paths["platlib"], *site.getsitepackages()],
}))
"""


@dataclass(frozen=True)
class Interpreter:
    """Describe the Python below any virtual environment; all paths are absolute.

    `sites` are its own existing site folders; `purelib`, one of them, is where pip installs.
    """

    executable: Path
    prefixes: tuple[Path, ...]
    stdlib: Path
    scripts: Path
    purelib: Path
    sites: tuple[Path, ...]


def find_interpreter() -> Interpreter:
    """Ask the base interpreter of the running one for its folders.

    Raises LocalError when it has no site folder that exists.
    """
    executable = Path(sys.executable).resolve()
    told = json.loads(process.run([executable, "-I", "-c", _ASK], timeout=60).stdout)
    sites = tuple(dict.fromkeys(p for p in map(Path, told["sites"]) if p.is_dir()))
    if not sites:
        raise LocalError(
            f"{executable} has no site-packages folder",
            hint="install kagflow with a Python that has pip",
        )
    purelib = Path(told["purelib"])
    return Interpreter(
        executable=executable,
        prefixes=tuple(dict.fromkeys(Path(p).resolve() for p in told["prefixes"])),
        stdlib=Path(told["stdlib"]),
        scripts=Path(told["scripts"]),
        purelib=purelib if purelib in sites else sites[0],
        sites=sites,
    )

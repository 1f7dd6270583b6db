"""Wheels that stand in on this machine for those of a pack that only the image's Python installs.

They lie by the name of the wheel that each stands in for, or a word on why there is none. `ship`
finds them, a sandbox shows them to the kernel, and no pack ever holds one.
"""

from __future__ import annotations

import platform
import zipfile
from functools import cache
from pathlib import Path

from packaging.tags import Tag, sys_tags
from packaging.utils import InvalidWheelFilename, parse_wheel_filename

from kagflow.fingerprint import Fingerprint
from kagflow.tags import target_tags
from kagflow.workspace import user_cache

# In a wheel's folder, where no stand-in could be had.
REASON = "reason.txt"
_NEVER_LOOKED = "none was looked for"


@cache
def host_tags() -> tuple[Tag, ...]:
    """Return the wheel tags that this Python installs, best first."""
    return tuple(sys_tags())


def folder(wheel: str) -> Path:
    """Return where the stand-ins of a wheel lie, or will: one folder for each Python's own tag."""
    return user_cache() / "stand-ins" / str(host_tags()[0]) / wheel


def foreign(env: Path, fingerprint: Fingerprint) -> list[str]:
    """Return the names of the wheels in a folder that the image installs and this Python does not.

    What the image itself refuses is no matter of this machine.
    """
    own, image = frozenset(host_tags()), frozenset(target_tags(fingerprint))
    return [
        wheel.name
        for wheel in sorted(env.glob("*.whl"))
        if (tags := _tags(wheel.name)) & image and not tags & own
    ]


def found(wheel: str) -> list[Path]:
    """Return what is installed here in a wheel's place; none where nothing could be had."""
    own = frozenset(host_tags())
    files = [file for file in sorted(folder(wheel).glob("*.whl")) if _tags(file.name) & own]
    # What it needs besides may have come alone, before an interrupt.
    return files if any(_name(file.name) == _name(wheel) for file in files) else []


def reason(wheel: str) -> str:
    """Return why there is no stand-in for a wheel."""
    file = folder(wheel) / REASON
    return file.read_text() if file.is_file() else _NEVER_LOOKED


def lack(module: str, env: Path, fingerprint: Fingerprint) -> str:
    """Return why this machine can't import a module that a pack brings, "" where that is not so."""
    top = module.partition(".")[0]
    for wheel in foreign(env, fingerprint):
        if not found(wheel) and top in _tops(env / wheel):
            here, image = platform.python_version(), fingerprint.python
            return (
                f"'{module}' is in the pack, and this machine lacks it: {wheel} is for Python "
                f"{image}, here is {here}, and nothing stands in for it ({reason(wheel)}); "
                f"rehearse with Python {image}, or put a wheel of the same version for this "
                f"Python into {folder(wheel)}"
            )
    return ""


def _tags(wheel: str) -> frozenset[Tag]:
    try:
        return parse_wheel_filename(wheel)[3]
    except InvalidWheelFilename:
        return frozenset()


def _name(wheel: str) -> str:
    return str(parse_wheel_filename(wheel)[0])


def _tops(wheel: Path) -> set[str]:
    with zipfile.ZipFile(wheel) as archive:
        return {name.partition("/")[0].partition(".")[0] for name in archive.namelist()}

"""The lines of an error that are the user's own, without kagflow's and the libraries'."""

from __future__ import annotations

import sysconfig
import traceback
from pathlib import Path

_PACKAGE = Path(__file__).parent
# A wheel carries the shipped competitions inside the package; their code is like the user's.
_SHIPPED = _PACKAGE / "competitions"
_LIBRARIES = tuple(Path(sysconfig.get_path(name)) for name in ("stdlib", "purelib", "platlib"))


def own_lines(error: BaseException) -> tuple[str, ...]:
    """Return a traceback's lines of files that are neither kagflow's nor installed.

    Where none of them is the user's, the last line of all says at least where it was raised. A
    syntax error's own lines show the place in the file. Files below the current folder are named
    from there.
    """
    told = traceback.TracebackException.from_exception(error)
    # What called kagflow is no part of the story.
    ours = [at for at, frame in enumerate(told.stack) if _within(frame.filename, _PACKAGE)]
    frames = [frame for frame in told.stack[min(ours, default=0) :] if is_own(frame.filename)]
    shown = frames or list(told.stack)[-1:]
    if isinstance(error, SyntaxError) and error.filename:
        shown = frames
    lines = "".join(
        [*traceback.StackSummary.from_list(shown).format(), *told.format_exception_only()]
    )
    return tuple(lines.replace(f'File "{Path.cwd()}/', 'File "').rstrip("\n").splitlines())


def is_own(filename: str) -> bool:
    """Tell whether a file is the user's own code."""
    if filename.startswith("<"):
        return False
    if _within(filename, _SHIPPED):
        return True
    return not any(_within(filename, folder) for folder in (_PACKAGE, *_LIBRARIES))


def _within(filename: str, folder: Path) -> bool:
    return Path(filename).is_relative_to(folder)

"""Files that travel with kagflow: templates, competitions, image snapshots."""

from __future__ import annotations

from pathlib import Path

_PACKAGE = Path(__file__).parent


def _packaged_or_checkout(name: str) -> Path:
    packaged = _PACKAGE / name
    # A wheel carries the folder inside the package; an editable install reads the checkout's own.
    return packaged if packaged.is_dir() else _PACKAGE.parent / name


def templates() -> Path:
    """Return the folder of kernel, competition and notebook templates."""
    return _packaged_or_checkout("templates")


def competitions() -> Path:
    """Return the folder of the shipped competitions."""
    return _packaged_or_checkout("competitions")


def snapshots() -> Path:
    """Return the folder of the shipped Kaggle image snapshots."""
    return _PACKAGE / "snapshots"

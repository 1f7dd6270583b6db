"""A workspace on this host, whose runs and decoded images are shared with others."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from kagflow_host_common import inside


def arrange(home: str, root: str, links: Mapping[str, str]) -> dict[str, Any]:
    """Make a workspace and return its path.

    `links` {path in it: folder of kagflow's} are made where missing, and stay when it goes.
    """
    place = inside(home, root)
    for name, source in links.items():
        link, shared = inside(place, name), inside(home, source)
        shared.mkdir(parents=True, exist_ok=True)
        link.parent.mkdir(parents=True, exist_ok=True)
        if not link.is_symlink():
            link.symlink_to(shared, target_is_directory=True)
    return {"root": str(place)}

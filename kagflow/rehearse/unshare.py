"""The fall-back layer: util-linux' unshare makes namespaces, `enter` carries out the mounts."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import astuple
from pathlib import Path

from kagflow.rehearse.plan import WORKING, Mount

_NAMESPACES = [
    "--user",
    "--map-root-user",
    "--mount",
    "--net",
    "--pid",
    "--ipc",
    "--uts",
    "--fork",
    "--kill-child=SIGKILL",
]


def arguments(
    mounts: Sequence[Mount], command: Sequence[str], env: Mapping[str, str], *, python: Path
) -> tuple[list[str], bytes]:
    """Return unshare's words and the bytes that `enter` must find on the descriptor `{fd}`.

    `{alive}` is a pipe whose end tells `enter` that this process is gone: --kill-child watches
    over unshare only, which outlives a parent that is killed.
    Needs Linux 5.12 (mount_setattr) and unprivileged user namespaces.
    """
    script = Path(__file__).with_name("enter.py")
    plan = {
        "mounts": [astuple(mount) for mount in mounts],
        "command": list(command),
        "env": dict(env),
        "cwd": WORKING,
    }
    words = ["unshare", *_NAMESPACES, "--", str(python), "-I", "-S", str(script), "{fd}", "{alive}"]
    return words, json.dumps(plan).encode()

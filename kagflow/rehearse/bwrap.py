"""The stronger layer: bubblewrap carries out a plan of mounts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from kagflow.rehearse.plan import WORKING, Mount

_FLAGS = {
    "read": "--ro-bind",
    "write": "--bind",
    "device": "--dev-bind",
    "symlink": "--symlink",
}
_ALONE = {"tmpfs": "--tmpfs", "freeze": "--remount-ro", "proc": "--proc", "dev": "--dev"}


def arguments(
    mounts: Sequence[Mount], command: Sequence[str], env: Mapping[str, str]
) -> tuple[list[str], bytes]:
    """Return bwrap's words and the bytes it must find on the descriptor `{fd}` names in them.

    Hundreds of mounts go through the descriptor, for a command line has an end.
    """
    words = ["--unshare-all", "--die-with-parent", "--new-session", "--hostname", "localhost"]
    words += ["--uid", "0", "--gid", "0", "--cap-drop", "ALL", "--clearenv"]
    for name, value in env.items():
        words += ["--setenv", name, value]
    for mount in mounts:
        words += _words(mount)
    words += ["--chdir", WORKING]
    return ["bwrap", "--args", "{fd}", *command], b"".join(f"{word}\0".encode() for word in words)


def _words(mount: Mount) -> list[str]:
    if mount.kind in _FLAGS:
        return [_FLAGS[mount.kind], mount.source, mount.target]
    if mount.kind == "open-tmpfs":
        return ["--perms", "1777", "--tmpfs", mount.target]
    return [_ALONE[mount.kind], mount.target]

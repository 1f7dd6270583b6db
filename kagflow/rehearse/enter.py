"""Carry out a plan of mounts inside fresh namespaces, then run its command. Standard library only.

Run as a script by the unshare layer, with the numbers of two descriptors: one holds the plan as
JSON, the other ends when whoever wants the result is gone.
The order is bubblewrap's: a tmpfs becomes the root, this machine's tree hangs below /old until all
mounts are made, then goes.
"""

from __future__ import annotations

import ctypes
import fcntl
import json
import os
import signal
import socket
import struct
import sys
import threading
from pathlib import Path

# <linux/mount.h>, <linux/prctl.h>, <linux/if.h>
MS_NOSUID, MS_NODEV, MS_NOEXEC, MS_BIND, MS_REC, MS_PRIVATE = 2, 4, 8, 4096, 16384, 1 << 18
MNT_DETACH = 2
SYS_MOUNT_SETATTR, AT_FDCWD, AT_RECURSIVE, MOUNT_ATTR_RDONLY = 442, -100, 0x8000, 1
PR_CAPBSET_DROP, PR_SET_NO_NEW_PRIVS = 24, 38
SIOCGIFFLAGS, SIOCSIFFLAGS, IFF_UP = 0x8913, 0x8914, 1
DEVICES = ("null", "zero", "full", "random", "urandom", "tty")
LINKS = {"fd": "/proc/self/fd", "stdin": "fd/0", "stdout": "fd/1", "stderr": "fd/2"}

libc = ctypes.CDLL(None, use_errno=True)


def main() -> None:
    """Read the plan, build the tree, enter it and run the command as a child of process 1."""
    with os.fdopen(int(sys.argv[1]), "rb") as file:
        plan = json.load(file)
    raise_loopback()
    socket.sethostname("localhost")
    enter_root()
    for kind, target, source in plan["mounts"]:
        place(kind, "/new" + target, source)
    os.chdir("/new")
    check(libc.pivot_root(b".", b"."), "pivot_root")
    check(libc.umount2(b".", MNT_DETACH), "umount2")
    os.chdir(plan["cwd"])
    sys.exit(supervise(plan["command"], plan["env"], int(sys.argv[2])))


def enter_root() -> None:
    """Make a tmpfs the root; this machine's tree is then at /old, the new one grows in /new."""
    mount("none", "/", "", MS_REC | MS_PRIVATE)
    mount("tmpfs", "/tmp", "tmpfs", MS_NOSUID | MS_NODEV)  # noqa: S108
    os.chdir("/tmp")  # noqa: S108
    for name in ("old", "new"):
        Path(name).mkdir(mode=0o755)
    check(libc.pivot_root(b".", b"old"), "pivot_root")
    os.chdir("/")
    mount("tmpfs", "/new", "tmpfs", MS_NOSUID | MS_NODEV, "mode=755")


def place(kind: str, target: str, source: str) -> None:
    """Make one mount; raises OSError naming the path that refused."""
    if kind in ("read", "write", "device"):
        bind("/old" + source, target)
    elif kind == "symlink":
        Path(target).parent.mkdir(parents=True, exist_ok=True)
        Path(target).symlink_to(source)
    elif kind == "freeze":
        read_only(target, 0)
    elif kind == "dev":
        devices(target)
    else:
        Path(target).mkdir(parents=True, exist_ok=True)
        file_system = "proc" if kind == "proc" else "tmpfs"
        options = {"tmpfs": "mode=755", "open-tmpfs": "mode=1777"}.get(kind, "")
        mount(file_system, target, file_system, MS_NOSUID | MS_NODEV, options)
    if kind == "read":
        read_only(target, AT_RECURSIVE)


def bind(source: str, target: str) -> None:
    """Show a file or folder of this machine at `target`, which is made where it is missing."""
    path = Path(target)
    if Path(source).is_dir():
        path.mkdir(parents=True, exist_ok=True)
    elif not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    mount(source, target, "", MS_BIND | MS_REC)


def devices(target: str) -> None:
    """Fill a fresh /dev with what every program expects."""
    folder = Path(target)
    folder.mkdir(parents=True)
    mount("tmpfs", target, "tmpfs", MS_NOSUID, "mode=755")
    for name in DEVICES:
        bind(f"/old/dev/{name}", f"{target}/{name}")
    for name, text in LINKS.items():
        (folder / name).symlink_to(text)


def read_only(target: str, flags: int) -> None:
    """Forbid writing below a mount; mount_setattr keeps the flags that a namespace locks."""
    attributes = struct.pack("=4Q", MOUNT_ATTR_RDONLY, 0, 0, 0)
    path = target.encode()
    check(
        libc.syscall(SYS_MOUNT_SETATTR, AT_FDCWD, path, flags, attributes, len(attributes)), target
    )


def mount(source: str, target: str, kind: str, flags: int, options: str = "") -> None:
    """Call mount(2); raises OSError naming the target."""
    words = (source.encode(), target.encode(), kind.encode() or None)
    check(libc.mount(*words, ctypes.c_ulong(flags), options.encode() or None), target)


def check(returned: int, what: str) -> None:
    """Raise OSError with errno's text where a call failed."""
    if returned < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), what)


def raise_loopback() -> None:
    """Bring `lo` up: a fresh network namespace has it down, and workers talk through it."""
    with socket.socket() as one:
        request = struct.pack("16sh22x", b"lo", 0)
        flags = struct.unpack("16sh22x", fcntl.ioctl(one, SIOCGIFFLAGS, request))[1]
        fcntl.ioctl(one, SIOCSIFFLAGS, struct.pack("16sh22x", b"lo", flags | IFF_UP))


def supervise(command: list[str], env: dict[str, str], alive: int) -> int:
    """Run the command without privileges, reap what it leaves, return its shell exit status.

    When `alive` ends, whoever wanted the result is gone, and everything in here goes too.
    """
    child = os.fork()
    if child == 0:
        os.close(alive)
        run(command, env)
    threading.Thread(target=end_with, args=(alive,), daemon=True).start()
    while True:
        pid, status = os.wait()
        if pid == child:
            code = os.waitstatus_to_exitcode(status)
            return code if code >= 0 else 128 - code


def end_with(alive: int) -> None:
    """Wait for a pipe's end, then end process 1 and with it the whole namespace."""
    os.read(alive, 1)
    os._exit(128 + signal.SIGKILL)


def run(command: list[str], env: dict[str, str]) -> None:
    """Drop every capability for good and become the command."""
    try:
        os.setsid()
        signal.signal(signal.SIGPIPE, signal.SIG_DFL)
        libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
        for capability in range(64):
            libc.prctl(PR_CAPBSET_DROP, capability, 0, 0, 0)
        os.execve(command[0], command, env)  # noqa: S606
    finally:
        os._exit(127)


if __name__ == "__main__":
    main()

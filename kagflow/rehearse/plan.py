"""The file system that a kernel finds, as a list of mounts that either layer carries out."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from kagflow import standins
from kagflow.fingerprint import Fingerprint
from kagflow.rehearse.interpreter import Interpreter
from kagflow.rehearse.view import View

Kind = Literal["read", "write", "device", "symlink", "tmpfs", "open-tmpfs", "freeze", "proc", "dev"]
Layout = Literal["nested", "flat"]

SCRIPT = "/kaggle/src/script.py"
WORKING = "/kaggle/working"
INPUT = "/kaggle/input"
STAND_INS = "/kaggle/stand-ins"
_SYSTEM = ("/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32", "/nix/store", "/sys")
# Only what programs need to run: the rest of /etc tells of this machine and may hold secrets.
_ETC = [
    "alternatives",
    "group",
    "hosts",
    "ld.so.cache",
    "ld.so.conf",
    "ld.so.conf.d",
    "localtime",
    "mime.types",
    "nsswitch.conf",
    "os-release",
    "passwd",
    "protocols",
    "resolv.conf",
    "services",
    "ssl",
    "timezone",
]
_SHARED_SCRIPTS = ("/usr/bin", "/bin")


@dataclass(frozen=True)
class Mount:
    """Put `source` (a path of this machine, a link's text, or "") at `target` inside.

    "freeze" makes an earlier tmpfs read-only; "open-tmpfs" is one that everybody may write to.
    """

    kind: Kind
    target: str
    source: str = ""


def machine(interpreter: Interpreter) -> list[Mount]:
    """List the mounts of a bare system: programs, devices, empty homes, the interpreter."""
    mounts = [mount for path in _SYSTEM if (mount := _system(Path(path)))]
    mounts += [_read(f"/etc/{name}") for name in _ETC if Path("/etc", name).exists()]
    mounts += [Mount("proc", "/proc"), Mount("dev", "/dev")]
    mounts += [
        Mount("device", str(path), str(path)) for path in sorted(Path("/dev").glob("nvidia*"))
    ]
    mounts += [Mount("open-tmpfs", path) for path in ("/tmp", "/var/tmp", "/dev/shm")]  # noqa: S108
    mounts += [Mount("tmpfs", path) for path in ("/root", "/home", "/run", "/kaggle/temp")]
    return mounts + [
        _read(str(prefix))
        for prefix in interpreter.prefixes
        if not prefix.is_relative_to("/usr") and not prefix.is_relative_to("/nix/store")
    ]


def packages(interpreter: Interpreter, view: View) -> list[Mount]:
    """List the mounts that replace the interpreter's own site folders by the view."""
    mounts = [Mount("tmpfs", str(site)) for site in interpreter.sites]
    if str(interpreter.scripts) not in _SHARED_SCRIPTS and interpreter.scripts.is_dir():
        # pip writes scripts here, and other people's tools must not be found.
        mounts.append(Mount("tmpfs", str(interpreter.scripts)))
        mounts += [_read(str(path)) for path in sorted(interpreter.scripts.glob("python*"))]
    marker = interpreter.stdlib / "EXTERNALLY-MANAGED"
    if marker.exists():
        # pip looks for a regular file; Kaggle's image has none.
        mounts.append(Mount("read", str(marker), os.devnull))
    return mounts + [
        Mount("read", f"{interpreter.purelib}/{where}", str(source)) for where, source in view.binds
    ]


def kaggle(
    script: Path,
    working: Path,
    *,
    competition: tuple[str, Path],
    datasets: Mapping[str, Path],
    layout: Layout,
    kernels: Mapping[str, Path] | None = None,
) -> list[Mount]:
    """List the mounts below /kaggle; `datasets` and `kernels` map owner/slug to a folder."""
    slug, folder = competition
    nested = layout == "nested"
    inputs = {f"competitions/{slug}" if nested else slug: folder}
    for name, path in datasets.items():
        inputs[f"datasets/{name}" if nested else name.rpartition("/")[2]] = path
    for name, path in (kernels or {}).items():
        inputs[f"notebooks/{name}" if nested else name.rpartition("/")[2]] = path
    return [
        Mount("tmpfs", INPUT),
        *(Mount("read", f"{INPUT}/{where}", str(path.resolve())) for where, path in inputs.items()),
        Mount("freeze", INPUT),
        Mount("read", SCRIPT, str(script.resolve())),
        Mount("write", WORKING, str(working.resolve())),
    ]


def stand_ins(folders: Iterable[Path], fingerprint: Fingerprint) -> list[Mount]:
    """List the mounts that show what is installed for wheels that this Python refuses.

    A wheel without a stand-in has an empty folder, or one with the reason: the kernel says so.
    """
    mounts = []
    for wheel in sorted({name for one in folders for name in standins.foreign(one, fingerprint)}):
        place = standins.folder(wheel)
        kind: Kind = "read" if place.is_dir() else "tmpfs"
        source = str(place.resolve()) if place.is_dir() else ""
        mounts.append(Mount(kind, f"{STAND_INS}/{wheel}", source))
    return mounts


def environment(interpreter: Interpreter, *, rerun: bool, image: str = "") -> dict[str, str]:
    """Return all variables that a kernel gets; nothing of this machine's own passes."""
    own = [str(interpreter.executable.parent), str(interpreter.scripts)]
    folders = [*own, "/usr/local/bin", "/usr/bin", "/bin"]
    threads = os.environ.get("OMP_NUM_THREADS") or str(len(os.sched_getaffinity(0)))
    variables = {
        "PATH": ":".join(dict.fromkeys(folders)),
        "HOME": "/root",
        "LANG": "C.UTF-8",
        "TERM": "dumb",
        "PYTHONUNBUFFERED": "1",
        "KAGGLE_KERNEL_RUN_TYPE": "Batch",
        "KAGGLE_URL_BASE": "https://www.kaggle.com",
        "PIP_CONFIG_FILE": os.devnull,
        "PIP_DISABLE_PIP_VERSION_CHECK": "1",
        "HF_HUB_OFFLINE": "1",
        "OMP_NUM_THREADS": threads,
        # Tells the kernel that another Python than Kaggle's is a fact to print, not a failure.
        "KAGFLOW_REHEARSAL": "1",
        # Two stored answers prove as much as eight here, in a fraction of the time.
        "KAGFLOW_PARITY": "2",
    }
    if image:
        variables["KAGGLE_DOCKER_IMAGE"] = image
    if rerun:
        variables["KAGGLE_IS_COMPETITION_RERUN"] = "1"
    return variables


def _system(path: Path) -> Mount | None:
    if path.is_symlink():
        return Mount("symlink", str(path), str(path.readlink()))
    return _read(str(path)) if path.is_dir() else None


def _read(path: str) -> Mount:
    return Mount("read", path, str(Path(path).resolve()))

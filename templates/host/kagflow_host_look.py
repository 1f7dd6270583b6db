"""Say what this host is, what it has, and what its Pythons import."""

from __future__ import annotations

import json
import os
import platform
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from kagflow_host_common import Refused

SECONDS = 120
# Run by the Python that is asked about.
LISTING = """
import importlib.metadata as m, json, platform
print(json.dumps({"version": platform.python_version(), "found": {
    one.metadata["Name"]: one.version
    for one in reversed(list(m.distributions())) if one.metadata["Name"]}}))
"""


def probe(home: str) -> dict[str, Any]:
    """Say what this host is and has, and make kagflow's folder here."""
    place = Path(os.path.expanduser(home))
    place.mkdir(mode=0o700, parents=True, exist_ok=True)
    gpus, driver = _gpus()
    return {
        "home": str(place.resolve()),
        "python": sys.executable,
        "version": platform.python_version(),
        "machine": platform.machine(),
        "system": platform.system(),
        "glibc": platform.libc_ver()[1],
        "rsync": _rsync(),
        "gpus": gpus,
        "driver": driver,
        "free": shutil.disk_usage(place).free,
        "now": time.time(),
    }


def packages(python: str) -> dict[str, Any]:
    """Return a Python's version and the distributions that it imports, by name."""
    try:
        done = subprocess.run(
            [python, "-I", "-c", LISTING], capture_output=True, timeout=SECONDS, check=False
        )
    except OSError as error:
        raise Refused("python", f"{python}: {error.strerror}") from None
    if done.returncode:
        last = done.stderr.decode(errors="replace").strip().splitlines()[-1:]
        raise Refused("python", f"{python} fails: {''.join(last)}")
    return dict(json.loads(done.stdout.decode().splitlines()[-1]))


def _rsync() -> str:
    if shutil.which("rsync") is None:
        return ""
    told = subprocess.run(["rsync", "--version"], capture_output=True, check=False).stdout
    found = re.search(r"version\s+v?(\S+)", told.decode(errors="replace"))
    return found[1] if found else "unknown"


def _gpus() -> tuple[list[str], str]:
    tool = shutil.which("nvidia-smi")
    if tool is None:
        return [], "no nvidia-smi"
    query = [tool, "--query-gpu=name", "--format=csv,noheader"]
    try:
        done = subprocess.run(query, capture_output=True, timeout=SECONDS, check=False)
    except subprocess.TimeoutExpired:
        return [], "nvidia-smi does not answer"
    text = (done.stdout + done.stderr).decode(errors="replace")
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return (lines, "") if done.returncode == 0 else ([], " ".join(["nvidia-smi:", *lines[-1:]]))

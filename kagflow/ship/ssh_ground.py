"""What a training needs on a host: code, images, a load; a workspace there made of them."""

from __future__ import annotations

import hashlib
import json
import platform
import tempfile
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from kagflow import durable
from kagflow.ship.manifest import MANIFEST
from kagflow.ship.parts import Part
from kagflow.ship.ssh import Link
from kagflow.ship.ssh_send import ask, listed, send
from kagflow.ship.whole import build_whole
from kagflow.task.spec import TaskSpec
from kagflow.workspace import Workspace

CACHE = ".kagflow/cache"


@dataclass(frozen=True)
class Laid:
    """Name what lies on a host: the workspace's root, the code to import, load and images."""

    root: str
    code: str
    load: str
    images: str

    def step(self, python: str) -> dict[str, Any]:
        """Return the command that fills the workspace."""
        argv = [python, "-P", "-m", "kagflow.ship.unload", self.load, self.root]
        return {"argv": [*argv, "--images", self.images], "env": {"PYTHONPATH": self.code}}


@dataclass(frozen=True)
class Ground:
    """Name a competition's data here, and where its runs lie on any host.

    `spec` says which files are trained on; `caches` are folders of decoded images that exist here.
    """

    workspace: Workspace
    name: str
    spec: TaskSpec
    caches: tuple[Path, ...] = ()

    @property
    def data(self) -> Path:
        """The competition's data here."""
        return self.workspace.data(self.name)

    @cached_property
    def files(self) -> dict[str, tuple[int, str]]:
        """Return {name: (bytes, sha256)} of the images and labels to train on; the test stays."""
        known = json.loads((self.data / MANIFEST).read_text()).get("files", {})
        images = sorted((self.data / self.spec.train_images).rglob("*"))
        paths = [self.data / self.spec.train_csv, *(path for path in images if path.is_file())]
        names = [path.relative_to(self.data).as_posix() for path in paths]
        return {name: _facts(self.data / name, known.get(name)) for name in names}

    @cached_property
    def space(self) -> str:
        """Return what names this workspace's runs of this data on any host."""
        root = str(self.workspace.root.resolve())
        return digest([platform.node(), root, self.workspace.profile, self.name, self.files])

    @property
    def runs(self) -> str:
        """Return where these runs lie below a host's kagflow folder."""
        return f"runs/{self.space}"

    def lay(self, link: Link, job: str, load: Part) -> Laid:
        """Send what the host lacks, and make a workspace for a job there."""
        with tempfile.TemporaryDirectory(prefix="kagflow-code-") as made:
            with zipfile.ZipFile(build_whole(Path(made))) as wheel:
                wheel.extractall(Path(made, "code"))
            code = self._send(link, "code", Path(made, "code"))
        loaded = self._send(link, "load", load.path)
        images = f"data/{digest(self.files)}"
        for cache in self.caches:
            # It keeps the name by which kagflow finds it.
            send(link, f"{CACHE}/images/{cache.name}", cache, listed(cache), what="decoded images")
        data = send(link, images, self.data, self.files, what="images")
        place = self.workspace.runs(self.name).relative_to(self.workspace.root).as_posix()
        links = {place: self.runs, CACHE: CACHE}
        told = ask(link, "arrange", root=f"work/{job}", links=links)
        return Laid(str(told["root"]), code, loaded, data)

    def _send(self, link: Link, shelf: str, folder: Path) -> str:
        files = listed(folder)
        return send(link, f"{shelf}/{digest(files)}", folder, files, what=shelf)


def digest(value: Any) -> str:
    """Return 16 hexadecimal digits of a JSON value's SHA-256."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:16]


def _facts(path: Path, known: Mapping[str, Any] | None) -> tuple[int, str]:
    """Return bytes and hash of a file; a fetch has noted them already."""
    if known is not None:
        return int(known["bytes"]), str(known["sha256"])
    return path.stat().st_size, durable.sha256_file(path)

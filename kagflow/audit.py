"""Read a workspace again and compare every file with the manifest that vouches for it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kagflow import durable
from kagflow.progress import QUIET, Progress


@dataclass(frozen=True)
class Fault:
    """Name a file that is not what it should be."""

    path: Path
    what: str


@dataclass(frozen=True)
class Audit:
    """Count what was read, and list what was wrong with it."""

    manifests: int
    files: int
    faults: tuple[Fault, ...]


def audit(home: Path, *, progress: Progress = QUIET) -> Audit:
    """Verify data, packs, runs and ensembles below a workspace's home; changes nothing."""
    found = [
        *((path, _manifest) for path in sorted(home.glob("data/*/manifest.json"))),
        *((path, _pack) for path in sorted(home.glob("packs/*/*/manifest.json"))),
        *((path, _checkpoint) for path in sorted(home.glob("runs/*/*/*/ckpt-*.json"))),
        *((path, _run) for path in sorted(home.glob("runs/*/*/*/run.json"))),
        *((path, _ensemble) for path in sorted(home.glob("ensembles/*/*.json"))),
    ]
    faults: list[Fault] = []
    files = 0
    progress.start("verify", len(found), "manifests")
    for path, verify in found:
        try:
            content = json.loads(path.read_text())
            for fault in verify(path, content):
                files += 1
                if fault is not None:
                    faults.append(fault)
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            faults.append(Fault(path, f"not readable: {error!r}"))
        progress.advance()
    progress.finish()
    return Audit(len(found), files, tuple(faults))


def _manifest(path: Path, content: dict[str, Any]) -> Iterator[Fault | None]:
    for name, noted in content["files"].items():
        yield _compare(path.parent / name, noted["sha256"])


def _pack(path: Path, content: dict[str, Any]) -> Iterator[Fault | None]:
    same = content["pack"] == path.parent.name
    yield None if same else Fault(path, f"is the manifest of pack {content['pack']}")
    if "files" in content:
        # As an earlier kagflow packed, all in one.
        yield from _manifest(path, content)
        return
    for part, name in content["parts"].items():
        inner = path.parent / part / path.name
        manifest = json.loads(inner.read_text())
        same = manifest["hash"] == name
        yield None if same else Fault(inner, f"is the manifest of {part} {manifest['hash']}")
        yield from _manifest(inner, manifest)


def _checkpoint(path: Path, content: dict[str, Any]) -> Iterator[Fault | None]:
    yield _compare(path.with_suffix(".pt"), content["sha256"])


def _run(path: Path, content: dict[str, Any]) -> Iterator[Fault | None]:
    yield None if content["finished"] else Fault(path, "is there, but not finished")
    for name in ("config.yaml", "best.safetensors"):
        file = path.parent / name
        yield None if file.is_file() and file.stat().st_size else Fault(file, "is missing or empty")
    for name, sha256 in content.get("assets", {}).items():
        yield _compare(path.parent / "assets" / name, sha256)


def _ensemble(path: Path, content: dict[str, Any]) -> Iterator[Fault | None]:
    home = path.parents[2]
    for member in content["members"]:
        for name in [*member["weights"], *member.get("assets", {}).values()]:
            yield None if (home / name).is_file() else Fault(home / name, f"{path.name} needs it")


def _compare(path: Path, sha256: str) -> Fault | None:
    if not path.is_file():
        return Fault(path, "is missing")
    return None if durable.sha256_file(path) == sha256 else Fault(path, "its bytes have changed")

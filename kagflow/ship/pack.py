"""Build the one folder that a kernel needs: weights, wheels, config, manifest; named by content."""

from __future__ import annotations

import hashlib
import json
import re
import shutil
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from kagflow import durable
from kagflow.errors import DataError, RefusedError
from kagflow.fingerprint import Fingerprint
from kagflow.progress import QUIET, Progress
from kagflow.ship import credentials, runtime, secrets
from kagflow.ship.shelf import WheelSource
from kagflow.ship.wheels import missing_wheels, own_shelf

SCHEMA = 1
MANIFEST = "manifest.json"
CONFIG = "config.json"
# Stored answers, which no member names: kagflow.infer.parity.
PARITY = "parity.safetensors"
# Kaggle takes other letters at first and fails the version later (kaggle-cli 430, 524).
FLAT_NAME = re.compile(r"[A-Za-z0-9._+-]+")


@dataclass(frozen=True)
class Pack:
    """Name a finished pack; `wheels` is empty where it was only read."""

    path: Path
    hash: str
    manifest: dict[str, Any]
    wheels: tuple[WheelSource, ...] = ()
    reused: bool = False

    @property
    def files(self) -> tuple[Path, ...]:
        """All files that are uploaded, the manifest last."""
        return tuple(self.path / name for name in [*sorted(self.manifest["files"]), MANIFEST])

    @property
    def bytes(self) -> int:
        """Size of all files, in bytes."""
        return sum(file.stat().st_size for file in self.files)


def build_pack(  # noqa: PLR0913 - one keyword for each thing that is packed
    target_root: Path,
    *,
    weights: Mapping[str, Path],
    config: Mapping[str, Any],
    competition_folder: Path,
    fingerprint: Fingerprint,
    requires: Sequence[str] = (),
    progress: Progress = QUIET,
) -> Pack:
    """Write `target_root/<hash>/`, flat and whole; the same inputs give the same hash and bytes.

    `weights` maps names in the pack to exported files, weights and assets; `config` is what
    infer.kernel reads, `requires` lists what the competition's own code imports (PEP 508). A pack
    that is already there is checked and reused. Raises RefusedError on a credential in a file,
    DataError on unfit names, files or requirements, LocalError where a wheel can't be had.
    """
    with tempfile.TemporaryDirectory(prefix="kagflow-pack-") as temporary:
        work = Path(temporary)
        asked = {runtime.NAME: runtime.requirements(), "competition.yaml": tuple(requires)}
        closure = missing_wheels(asked, fingerprint, own_shelf(work), progress=progress)
        code = runtime.build_runtime(competition_folder, work)
        settings = work / CONFIG
        durable.write_json(settings, _checked_config(config, weights))
        wheels = {wheel.file.name: wheel.file for wheel in closure.wheels}
        sources = {**weights, **wheels, code.name: code, CONFIG: settings}
        manifest = _manifest(_facts(sources, progress), fingerprint, asked, closure.relied_on)
        reused = _place(target_root / manifest["pack"], sources, manifest)
    path = target_root / str(manifest["pack"])
    placed = tuple(replace(wheel, file=path / wheel.file.name) for wheel in closure.wheels)
    return Pack(path, manifest["pack"], manifest, (*placed, _own_wheel(path / code.name)), reused)


def read_pack(path: Path) -> Pack:
    """Read a pack and check every byte of it against its manifest.

    Raises DataError naming what is missing, changed or not on the manifest.
    """
    advice = f"remove {path} and pack again"
    try:
        manifest = json.loads((path / MANIFEST).read_text())
        listed, name = manifest["files"], manifest["pack"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(f"{path} is no whole pack: {error!r}", hint=advice) from None
    if pack_hash(manifest) != name:
        raise DataError(f"{path}: the manifest was changed", hint=advice)
    present = {file.name for file in path.iterdir()} - {MANIFEST}
    if present != set(listed):
        odd = ", ".join(sorted(present ^ set(listed)))
        raise DataError(f"{path}: not as the manifest lists it: {odd}", hint=advice)
    for file, facts in listed.items():
        if durable.sha256_file(path / file) != facts["sha256"]:
            raise DataError(f"{path / file} is not the file that was packed", hint=advice)
    return Pack(path, name, manifest)


def pack_hash(manifest: Mapping[str, Any]) -> str:
    """Return the first 16 hex digits of the SHA-256 of a manifest without its own `pack` entry.

    It covers every file's SHA-256 and the image that the pack was made for.
    """
    body = {key: value for key, value in manifest.items() if key != "pack"}
    return hashlib.sha256(json.dumps(body, sort_keys=True).encode()).hexdigest()[:16]


def _checked_config(config: Mapping[str, Any], weights: Mapping[str, Path]) -> Mapping[str, Any]:
    named = {
        file
        for member in config.get("members", [])
        for file in [*member["weights"], *member.get("assets", {}).values()]
    }
    given = set(weights) - {PARITY}
    if named != given:
        odd = ", ".join(sorted(named ^ given))
        raise DataError(f"weights and members of the pack do not name the same files: {odd}")
    return config


def _facts(sources: Mapping[str, Path], progress: Progress) -> dict[str, dict[str, Any]]:
    progress.start("check pack", len(sources), "files")
    facts = {}
    own = [one.secret for one in credentials.live()]
    for name, file in sorted(sources.items()):
        if not FLAT_NAME.fullmatch(name) or name == MANIFEST:
            raise DataError(
                f"'{name}' can't be a file of a Kaggle dataset",
                hint="letters, digits, . _ + and - only",
            )
        if file.is_symlink() or not file.is_file():
            raise DataError(f"{file} is no regular file", hint="copy the file itself there")
        _refuse_secrets(name, file, own)
        facts[name] = {"sha256": durable.sha256_file(file), "bytes": file.stat().st_size}
        progress.advance()
    progress.finish()
    return facts


def _refuse_secrets(name: str, file: Path, own: Sequence[str]) -> None:
    leaks = secrets.scan_file(file, own)
    if leaks:
        first = leaks[0]
        inside = name + first.where.removeprefix(file.name)
        raise RefusedError(
            f"{inside} holds what looks like {first.what} (ends in {first.tail})",
            hint="take it out of the file, revoke it, and pack again",
        )


def _manifest(
    facts: Mapping[str, Any],
    fingerprint: Fingerprint,
    asked: Mapping[str, Iterable[str]],
    relied_on: Mapping[str, str],
) -> dict[str, Any]:
    manifest: dict[str, Any] = {
        "schema": SCHEMA,
        "files": dict(facts),
        "python": fingerprint.python,
        "image": fingerprint.name,
        "approximate": fingerprint.approximate,
        "requires": sorted(text for texts in asked.values() for text in texts),
        "relied_on": dict(relied_on),
    }
    return {**manifest, "pack": pack_hash(manifest)}


def _place(final: Path, sources: Mapping[str, Path], manifest: Mapping[str, Any]) -> bool:
    if final.is_dir():
        read_pack(final)
        return True
    with durable.staging(final) as folder:
        for name, source in sources.items():
            shutil.copyfile(source, folder / name, follow_symlinks=False)
            # What is uploaded is what was scanned and hashed, though the source may move on.
            if durable.sha256_file(folder / name) != manifest["files"][name]["sha256"]:
                raise DataError(f"{source} changed while it was packed", hint="pack again")
        durable.write_json(folder / MANIFEST, manifest)
    return False


def _own_wheel(file: Path) -> WheelSource:
    version = file.name.split("-")[1]
    digest = durable.sha256_file(file)
    return WheelSource(runtime.NAME, version, file, "rebuilt", digest, "the kernel runs it")

"""Build the folder that a kernel needs, named by content: code and weights, a dataset each."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import kagflow
from kagflow import durable
from kagflow.errors import DataError, RefusedError
from kagflow.fingerprint import Fingerprint
from kagflow.progress import QUIET, Progress
from kagflow.shards import whole_name
from kagflow.ship import credentials, parts, proofs, runtime, scanned
from kagflow.ship.parts import ENV, MANIFEST, PARTS, WEIGHTS, Part
from kagflow.ship.proofs import Bundle, Proof
from kagflow.ship.shelf import WheelSource
from kagflow.ship.wheels import Closure, asked_for, missing_wheels, own_shelf

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
    parts: tuple[Part, ...]
    wheels: tuple[WheelSource, ...] = ()
    reused: bool = False
    proofs: tuple[Proof, ...] = ()
    offline: str = ""

    @property
    def env(self) -> Part:
        """What the kernel runs: wheels, code."""
        return self.parts[PARTS.index(ENV)]

    @property
    def weights(self) -> Part:
        """What the kernel knows: weights, assets, stored answers, config."""
        return self.parts[PARTS.index(WEIGHTS)]

    @property
    def bytes(self) -> int:
        """Size of all files that are uploaded, in bytes."""
        return sum(part.bytes for part in self.parts)

    @property
    def notes(self) -> tuple[str, ...]:
        """What a receipt says of the wheels: where each came from, and what was proved of them."""
        cut = f"no index was asked for the wheels: {self.offline}"
        return (
            *(f"wheel {one.file.name}: {one.origin}" for one in self.wheels),
            *([cut] if self.offline else []),
            *(f"proved: {one.name}: {one.text}" for one in self.proofs if one.held),
            *(f"not proved: {text}" for one in self.proofs for text in one.open),
        )


def build_pack(  # noqa: PLR0913 - one keyword for each thing that is packed
    target_root: Path,
    *,
    weights: Mapping[str, Path],
    config: Mapping[str, Any],
    competition_folder: Path,
    fingerprint: Fingerprint,
    requires: Sequence[str] = (),
    allow_replace: Sequence[str] = (),
    progress: Progress = QUIET,
) -> Pack:
    """Write `target_root/<hash>/` whole; the same inputs give the same hash and bytes.

    Inside are two flat folders, `env/` and `weights/`, whose hashes do not depend on each other.
    `weights` maps names in the pack to exported files, weights and assets; `config` is what
    infer.kernel reads, `requires` lists what the competition's own code imports (PEP 508), and
    `allow_replace` names what of the image a wheel may take the place of. A pack that is already
    there is checked and reused. Raises RefusedError on a credential in a file,
    DataError on unfit names, files or requirements, LocalError where a wheel can't be had.
    """
    with tempfile.TemporaryDirectory(prefix="kagflow-pack-") as temporary:
        work = Path(temporary)
        asked = asked_for(requires)
        shelf = own_shelf(work)
        closure = missing_wheels(
            asked, fingerprint, shelf, allow_replace=allow_replace, progress=progress
        )
        code = runtime.build_runtime(competition_folder, work)
        settings = work / CONFIG
        durable.write_json(settings, _checked_config(config, weights))
        wheels = {wheel.file.name: wheel.file for wheel in closure.wheels}
        proved = proofs.prove(
            Bundle(
                wheels=(*wheels.values(), code),
                asked=(f"{runtime.NAME}=={kagflow.__version__}", *requires),
                own=competition_folder.name,
                config=config,
                fingerprint=fingerprint,
                ghosts=shelf.ghosts,
                replaced=closure.replaced,
            )
        )
        sources = {ENV: {**wheels, code.name: code}, WEIGHTS: {**weights, CONFIG: settings}}
        facts = file_facts(sources, progress)
        env = seal_code(ENV, facts[ENV], fingerprint, asked, closure)
        manifests = {ENV: env, WEIGHTS: parts.seal(WEIGHTS, facts[WEIGHTS])}
        pack, reused = _place(target_root, sources, manifests)
    proofs.write(pack.path, pack.hash, proved, closure)
    home = pack.env.path
    placed = [replace(wheel, file=home / wheel.file.name) for wheel in closure.wheels]
    every = (*placed, _own_wheel(home / code.name))
    return replace(pack, wheels=every, reused=reused, proofs=proved, offline=closure.offline)


def read_pack(path: Path) -> Pack:
    """Read a pack and check every byte of it against its manifests.

    Raises DataError naming what is missing, changed or not on a manifest, and for a pack of an
    earlier kagflow.
    """
    manifest = parts.read_sealed(path, "pack", ("parts",))
    found = tuple(parts.read_part(path / name, name) for name in PARTS)
    if {part.name: part.hash for part in found} != manifest["parts"]:
        raise DataError(f"{path}: a part is another pack's", hint=parts.again(path))
    present = {file.name for file in path.iterdir()}
    if present != {*PARTS, MANIFEST}:
        odd = ", ".join(sorted(present - {*PARTS, MANIFEST}))
        raise DataError(f"{path}: not as the manifest lists it: {odd}", hint=parts.again(path))
    return Pack(path, manifest["pack"], found)


def _checked_config(config: Mapping[str, Any], weights: Mapping[str, Path]) -> Mapping[str, Any]:
    named = {
        file
        for member in config.get("members", [])
        for file in [*member["weights"], *member.get("assets", {}).values()]
    }
    given = {whole_name(name) for name in weights} - {PARITY}
    if named != given:
        odd = ", ".join(sorted(named ^ given))
        raise DataError(f"weights and members of the pack do not name the same files: {odd}")
    return config


def file_facts(
    sources: Mapping[str, Mapping[str, Path]], progress: Progress
) -> dict[str, dict[str, dict[str, Any]]]:
    """Return {part: {name: {sha256, bytes}}} of files that may leave this machine.

    Raises RefusedError on a credential in one, DataError for a name or kind that does not travel.
    """
    progress.start("check pack", sum(map(len, sources.values())), "files")
    facts: dict[str, dict[str, dict[str, Any]]] = {part: {} for part in sources}
    own = [one.secret for one in credentials.live()]
    for part, files in sources.items():
        for name, file in sorted(files.items()):
            _check_file(name, file)
            _refuse_secrets(name, file, own)
            facts[part][name] = {"sha256": durable.sha256_file(file), "bytes": file.stat().st_size}
            progress.advance()
    progress.finish()
    return facts


def _check_file(name: str, file: Path) -> None:
    if not FLAT_NAME.fullmatch(name) or name == MANIFEST:
        raise DataError(
            f"'{name}' can't be a file of a Kaggle dataset",
            hint="letters, digits, . _ + and - only",
        )
    if file.is_symlink() or not file.is_file():
        raise DataError(f"{file} is no regular file", hint="copy the file itself there")


def _refuse_secrets(name: str, file: Path, own: Sequence[str]) -> None:
    leaks = scanned.scan_once(file, own)
    if leaks:
        first = leaks[0]
        inside = name + first.where.removeprefix(file.name)
        raise RefusedError(
            f"{inside} holds what looks like {first.what} (ends in {first.tail})",
            hint="take it out of the file, revoke it, and pack again",
        )


def seal_code(
    name: str,
    facts: Mapping[str, Any],
    fingerprint: Fingerprint,
    asked: Mapping[str, Iterable[str]],
    closure: Closure,
) -> dict[str, Any]:
    """Return the manifest of a part with wheels: also which image they were chosen for."""
    # Named only where there are any: a pack without them keeps its hash.
    told = {"replaced": closure.replaced, "digest": fingerprint.digest}
    return parts.seal(
        name,
        facts,
        python=fingerprint.python,
        image=fingerprint.name,
        approximate=fingerprint.approximate,
        requires=sorted(text for texts in asked.values() for text in texts),
        relied_on=dict(closure.relied_on),
        **{name: value for name, value in told.items() if value},
    )


def _place(
    root: Path,
    sources: Mapping[str, Mapping[str, Path]],
    manifests: Mapping[str, dict[str, Any]],
) -> tuple[Pack, bool]:
    whole = parts.seal_pack({name: manifest["hash"] for name, manifest in manifests.items()})
    final = root / str(whole["pack"])
    if final.is_dir():
        return read_pack(final), True
    with durable.staging(final) as folder:
        for name in PARTS:
            parts.write_part(folder / name, sources[name], manifests[name])
        durable.write_json(folder / MANIFEST, whole)
    made = (Part(name, final / name, manifests[name]["hash"], manifests[name]) for name in PARTS)
    return Pack(final, whole["pack"], tuple(made)), False


def _own_wheel(file: Path) -> WheelSource:
    version = file.name.split("-")[1]
    digest = durable.sha256_file(file)
    return WheelSource(runtime.NAME, version, file, "rebuilt", digest, "the kernel runs it")

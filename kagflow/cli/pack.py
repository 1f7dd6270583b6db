"""kagflow pack: weights, wheels and code as one content-addressed folder."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from kagflow import durable
from kagflow.cli import competitions, drift, ensemble, explained, parity
from kagflow.cli.competitions import Known
from kagflow.cli.session import Session, guarded, open_session, sole
from kagflow.errors import RefusedError
from kagflow.shards import piece_name, pieces, there

if TYPE_CHECKING:
    from kagflow.ship.pack import Pack


@dataclass(frozen=True)
class Packed:
    """A pack, the ensemble that is in it, and what half precision costs each member."""

    pack: Pack
    ensemble: dict[str, Any]
    drift: list[dict[str, Any]]


@guarded
def command(
    context: typer.Context,
    words: Annotated[list[str] | None, typer.Argument(metavar="[COMPETITION]")] = None,
    name: Annotated[str, typer.Option("--ensemble", help="Which one.")] = ensemble.DEFAULT,
    explain: Annotated[
        bool, typer.Option("--explain", help="Only tell which wheels travel, and why.")
    ] = False,
) -> None:
    """Pack an ensemble for a machine without network: weights, missing wheels, code."""
    session = open_session(context)
    known = competitions.find(session.workspace, sole(words or [], "competition"))
    if explain:
        explained.show(session, known)
        return
    made = ensure(session, known, name=name)
    packed = made.pack
    rows = [(wheel.file.name, wheel.origin, wheel.why) for wheel in packed.wheels]
    session.out.table("wheels", ("file", "from", "why"), rows)
    drift.show(session, made.drift)
    session.out.result(
        {
            "pack": packed.hash,
            "path": str(packed.path),
            "bytes": packed.bytes,
            "parts": {part.name: {"hash": part.hash, "bytes": part.bytes} for part in packed.parts},
            "reused": packed.reused,
            "wheels": [row[0] for row in rows],
            "drift": made.drift,
            "next": session.command("submit --dry-run"),
        },
        f"pack {packed.hash}: {packed.bytes / 1e6:.1f} MB in {packed.path}\n"
        f"next: {session.command('submit --dry-run')}",
    )


def ensure(session: Session, known: Known, *, name: str = ensemble.DEFAULT) -> Packed:
    """Return the pack of an ensemble, made where it is missing."""
    from kagflow.ship import target
    from kagflow.ship.pack import PARITY, build_pack

    competitions.manifest(session.workspace, known)
    value = ensemble.ensure(session, known, name=name)
    if value["profile"] != session.workspace.profile:
        raise RefusedError(
            f"ensemble '{name}' was made under profile {value['profile']}",
            hint=f"kagflow ensemble --profile {session.workspace.profile}",
        )
    exported = export(session, value)
    answers = {PARITY: parity.make(session, known, value, exported)}
    weights = in_pieces(exported) | assets(session, value) | answers
    costs = drift.make(session, known, value, exported)
    pack = build_pack(
        session.workspace.packs(known.name),
        weights=weights,
        config=kernel_config(known, value),
        competition_folder=known.folder,
        fingerprint=target.chosen(session.workspace.targets, known.config.accelerator),
        requires=known.config.packed(),
        allow_replace=known.config.allow_replace,
        progress=session.out.progress(),
    )
    _keep_images(ensemble.path(session, known, name), pack)
    durable.write_json(pack.path.with_name(f"{pack.hash}.{drift.SUFFIX}"), {"members": costs})
    if not pack.reused:
        session.out.say(f"made pack {pack.hash} ({pack.bytes / 1e6:.1f} MB)")
    return Packed(pack, value, costs)


def _keep_images(file: Path, pack: Pack) -> None:
    """Keep what the images were worth beside the pack: the ensemble may be made anew."""
    from kagflow.learn import perimage

    source, target = perimage.path_beside(file), pack.path.with_name(pack.hash + perimage.SUFFIX)
    if source.is_file() and not target.is_file():
        durable.write_bytes(target, source.read_bytes())


def export(session: Session, value: dict[str, Any]) -> dict[str, Path]:
    """Return each fold's weights at the precision that travels, by their name in the pack.

    A file that is too large lies there in pieces: kagflow.shards.
    """
    from kagflow.infer.export import export_fp16

    found: dict[str, Path] = {}
    for member in value["members"]:
        for file in member["weights"]:
            source = session.workspace.home / file
            target = session.workspace.cache / "fp16" / f"{durable.sha256_file(source)}.safetensors"
            if not there(target):
                export_fp16(source, target)
            found[weight_name(file)] = target
    return found


def in_pieces(exported: Mapping[str, Path]) -> dict[str, Path]:
    """Return the files of exported weights as they lie, by their names in the pack."""
    found: dict[str, Path] = {}
    for name, file in exported.items():
        whole = pieces(file)
        names = [piece_name(name, at, len(whole)) for at in range(1, len(whole) + 1)]
        found |= dict(zip(names if len(whole) > 1 else [name], whole, strict=True))
    return found


def assets(session: Session, value: dict[str, Any]) -> dict[str, Path]:
    """Return the files that the members' inputs read, by their name in the pack."""
    return {
        asset_name(file): session.workspace.home / file
        for member in value["members"]
        for file in member.get("assets", {}).values()
    }


def asset_name(file: str) -> str:
    """Return an asset's flat name: `run.fold0.references.asset`."""
    parts = Path(file).parts
    return f"{_flat(parts[-4])}.{parts[-3]}.{parts[-1]}.asset"


def weight_name(file: str) -> str:
    """Return a run's weights' flat name: `run.fold0.safetensors`."""
    parts = Path(file).parts
    return f"{_flat(parts[-3])}.{parts[-2]}.safetensors"


def _flat(run: str) -> str:
    # Kaggle refuses some letters in file names, silently and late: facts of its dataset API. A hash
    # keeps apart what differs in those letters only.
    flat = re.sub(r"[^A-Za-z0-9._+-]", "_", run)
    return flat if flat == run else f"{flat}.{hashlib.sha256(run.encode()).hexdigest()[:6]}"


def kernel_config(known: Known, value: dict[str, Any]) -> dict[str, Any]:
    """Return the config.json that the kernel runs."""
    kept = ("predicts", "model", "input", "size", "tta", "weight", "mean", "seconds_per_image")
    members = [
        {"name": one["run"], "weights": [weight_name(file) for file in one["weights"]]}
        | {"assets": {key: asset_name(file) for key, file in one.get("assets", {}).items()}}
        | {key: one[key] for key in kept if key in one}
        for one in value["members"]
    ]
    limits = known.config.limits.model_dump(mode="json")
    return {
        "schema": 1,
        "competition": known.name,
        "task": value["task"],
        "members": members,
        "rules": value["rules"],
        # The first is given up first when time is short.
        "shedding": [one["run"] for one in value.get("shedding", ())],
        "rerun": known.config.rerun,
        "batch": 4,
        "backend": known.config.backend,
        "limits": limits,
    }

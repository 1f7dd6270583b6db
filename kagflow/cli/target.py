"""kagflow target: the Kaggle image that packs are made for: shown, probed, compared."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

from kagflow import fingerprint
from kagflow.cli import competitions, remotes
from kagflow.cli.session import Session, guarded, open_session
from kagflow.errors import KagflowError, UsageError
from kagflow.workspace import user_state

if TYPE_CHECKING:
    from kagflow.fingerprint import Fingerprint
    from kagflow.ship.target import Moved, Touched

GPU = "NvidiaTeslaT4"


@guarded
def command(
    context: typer.Context,
    words: Annotated[
        list[str] | None,
        typer.Argument(metavar="[ACTION [IMAGE [IMAGE]]]", help="show, probe, or diff A B."),
    ] = None,
    name: Annotated[str | None, typer.Option("--name", help="With show: which image.")] = None,
    find: Annotated[
        str | None, typer.Option("--find", help="With show: distributions whose name holds this.")
    ] = None,
    accelerator: Annotated[
        str | None,
        typer.Option(
            "--accelerator", help="cpu, gpu, tpu or Kaggle's own name; else the competition's."
        ),
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="With probe: say what it costs, and stop.")
    ] = False,
) -> None:
    """Show the image that packs are made for, probe Kaggle's own, or compare two."""
    session = open_session(context)
    action, *rest = words or ["show"]
    machine = _machine(session, accelerator)
    if action == "show" and not rest:
        show(session, machine, name=name, find=find)
    elif action == "probe" and not rest:
        probe(session, machine, dry_run=dry_run)
    elif action == "diff" and len(rest) <= 2:
        diff(session, machine, rest)
    else:
        raise UsageError(
            f"target {' '.join([action, *rest])}: not known",
            hint="kagflow target show, kagflow target probe, kagflow target diff A B",
        )


def show(session: Session, machine: str, *, name: str | None, find: str | None) -> None:
    """Print one image, and which one packs are made for."""
    from kagflow.ship import target

    folder = session.workspace.targets
    used = target.chosen(folder, machine)
    image = fingerprint.load(name, folder) if name else used
    held = {key: value for key, value in image.distributions.items() if (find or "") in key}
    if find:
        session.out.table(image.name, ("distribution", "version"), list(held.items()))
    known = [one.name for one in target.known(folder)]
    session.out.result(
        {
            **_facts(image),
            "in_use": used.name,
            "for": target.kind_of(machine),
            "probed_images": known,
            "distributions": held,
        },
        f"{_line(image)}\npacks for {target.kind_of(machine)} are made for {used.name}"
        + (f"\nprobed: {', '.join(known)}" if known else "")
        + (f"\nnext: {session.command('target probe')}" if used.approximate else ""),
    )


def probe(session: Session, machine: str, *, dry_run: bool) -> None:
    """Ask Kaggle for its image by a kernel that prints a list of facts, and keep the answer."""
    from kagflow.ship import target
    from kagflow.ship.doctor_live import Live, Notes
    from kagflow.ship.records import Records

    folder = session.workspace.targets
    kind = target.kind_of(machine)
    plan = {"kernel": "kagflow-probe", "accelerator": machine, "price": target.PRICES[kind]}
    session.out.say(f"a private, offline kernel 'kagflow-probe' on {machine}: {plan['price']}")
    if dry_run:
        words = session.command(f"target probe --accelerator {machine}")
        session.out.result({"plan": plan, "next": words}, f"next: {words}")
        return
    before = target.chosen(folder, machine)
    remote = remotes.open_remote(session)
    notes = Notes(remote.state, remote.account())
    progress = session.out.progress()
    records = Records(user_state())
    live = Live(remote, notes, records, task=None, machine_shape=machine, progress=progress)
    image = target.probe(live, folder)
    moved = target.diff(before, image)
    words = session.command(f"target diff {before.name} {image.name}")
    session.out.result(
        {
            **_facts(image),
            "before": before.name,
            "moved": len(moved.distributions),
            "distributions": image.distributions,
            "next": words,
        },
        f"{_line(image)}\n{len(moved.distributions)} distributions differ from {before.name}; "
        f"packs for {kind} are made for this image from now on\nnext: {words}",
    )


def diff(session: Session, machine: str, names: list[str]) -> None:
    """Print what moved between two images, and which packs here rely on it."""
    from kagflow.ship import target

    folder = session.workspace.targets
    used = target.chosen(folder, machine)
    first = fingerprint.load(names[0] if names else fingerprint.DEFAULT, folder)
    second = fingerprint.load(names[1], folder) if len(names) > 1 else used
    moved = target.diff(first, second)
    # Of the two, a probed one knows what its distributions need of each other.
    known = second if second.headers else first
    packs = target.touched(session.workspace.home / "packs", moved, known)
    _tables(session, first, second, moved, packs)
    here = {one.name for one in (first, second)}
    session.out.result(
        {
            "before": first.name,
            "after": second.name,
            "facts": moved.facts,
            "distributions": moved.distributions,
            "packs": [asdict(one) for one in packs],
            "in_use": used.name,
            "next": session.command("pack" if packs and used.name in here else "target show"),
        },
        f"{len(moved.distributions)} distributions moved; {len(packs)} packs rely on what moved",
    )


def _tables(
    session: Session, first: Fingerprint, second: Fingerprint, moved: Moved, packs: list[Touched]
) -> None:
    rows = [(name, *pair) for name, pair in (moved.facts | moved.distributions).items()]
    if rows:
        session.out.table("", ("what", first.name, second.name), rows)
    if packs:
        told = [(one.competition, one.pack, ", ".join(one.moved)) for one in packs]
        session.out.table("packs", ("competition", "pack", "relies on"), told)


def _machine(session: Session, accelerator: str | None) -> str:
    from kagflow.ship import target

    named = {"cpu": "None", "none": "None", "gpu": GPU, "tpu": target.SHAPES["tpu"]}
    if accelerator:
        return named.get(accelerator.lower(), accelerator)
    try:
        return competitions.find(session.workspace, None).config.accelerator or "None"
    except KagflowError:
        # No competition is active: an image may be looked at all the same.
        return GPU


def _facts(image: Fingerprint) -> dict[str, object]:
    return {
        "name": image.name,
        "approximate": image.approximate,
        "probed": image.probed,
        "accelerator": image.accelerator,
        "digest": image.digest,
        "python": image.python,
        "glibc": image.glibc,
        "cuda": image.cuda,
        "arches": list(image.arches),
    }


def _line(image: Fingerprint) -> str:
    label = "approximate, not probed" if image.approximate else f"probed {image.probed}"
    return (
        f"{image.name} ({label}): Python {image.python}, glibc {image.glibc}, "
        f"CUDA {image.cuda or 'none'}, {len(image.distributions)} distributions"
    )

"""`kagflow` alone: where you are on the road and what comes next."""

from __future__ import annotations

import typer

from kagflow.cli import competitions, ensemble, standing
from kagflow.cli.competitions import Known
from kagflow.cli.session import Session, open_session


def show(context: typer.Context) -> None:
    """Print the active competition, what each stage has made, and the next command."""
    session = open_session(context)
    active = session.workspace.active()
    if active is None:
        found = competitions.folders(session.workspace)
        names = ", ".join(sorted(found))
        # Whoever wrote one down here means that one.
        written = [one for one in sorted(found) if session.workspace.root in found[one].parents]
        next_command = f"kagflow fetch {next(iter([*written, *found]), '')}"
        session.out.result(
            {"competition": None, "known": names.split(", "), "next": next_command},
            f"no competition fetched here yet; known: {names}\nnext: {next_command}   "
            "(or kagflow demo: the whole road on generated steel, no account)",
        )
        return
    known = competitions.find(session.workspace, active)
    rows, next_command = _stages(session, known)
    stands = standing.ask(session, known)
    head = f"{known.name} ({session.workspace.profile})"
    session.out.table(head, ("stage", "made"), [*rows, *standing.describe(stands)])
    alarms = standing.alarms(stands)
    for alarm in alarms:
        session.out.warn(alarm)
    value = {"competition": known.name, "stages": dict(rows), "next": next_command}
    session.out.result(
        {**value, "standing": stands.to_dict(), "alarms": alarms}, f"next: {next_command}"
    )


def _stages(session: Session, known: Known) -> tuple[list[tuple[str, str]], str]:
    workspace = session.workspace
    fetched = (workspace.data(known.name) / "manifest.json").is_file()
    runs = ensemble.finished_runs(session, known)
    folds = ", ".join(f"{run} (folds {','.join(map(str, one))})" for run, one in runs.items())
    ensembles = sorted(file.stem for file in workspace.ensembles(known.name).glob("*.json"))
    packs = [file.parent.name for file in workspace.packs(known.name).glob("*/manifest.json")]
    receipts = [file.name for file in workspace.packs(known.name).glob("*.receipt.json")]
    rows = [
        ("fetch", "yes" if fetched else "no"),
        ("train", folds or "no finished run"),
        ("ensemble", ", ".join(ensembles) or "none"),
        ("pack", ", ".join(packs) or "none"),
        ("rehearsed", f"{len(receipts)} receipts" if receipts else "none"),
    ]
    if not fetched:
        return rows, session.command(f"fetch {known.name}")
    if not runs:
        return rows, session.command("train fold=0")
    return rows, session.command("submit" if receipts else "submit --dry-run")

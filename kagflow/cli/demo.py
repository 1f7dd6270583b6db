"""kagflow demo: the whole road on generated data, with no account and no network."""

from __future__ import annotations

import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from kagflow.cli import competitions, ensemble, fetch, jobs, local, pack, submit, training
from kagflow.cli.competitions import Known
from kagflow.cli.session import Session, guarded, open_session
from kagflow.errors import RefusedError, UsageError
from kagflow.workspace import Workspace, user_state

if TYPE_CHECKING:
    from kagflow.rehearse.receipt import Receipt
    from kagflow.task.score import Score

SEGMENTER_FOLDS = 2


@dataclass(frozen=True)
class Ending:
    """What the last screen shows."""

    ensemble: dict[str, Any]
    receipt: Receipt
    submission: dict[str, Any]
    floors: dict[str, float]
    hours: float


@guarded
def command(
    context: typer.Context,
    seed: Annotated[int | None, typer.Option(help="Seed of the generated data.")] = None,
) -> None:
    """Walk the whole road on generated data: fetch, train, ensemble, pack, rehearse, submit."""
    opened = open_session(context)
    known = _first_with_mini(opened)
    session = _own_workspace(opened, known, seed)
    ending = walk(session, known, seed=_seed(known, seed))
    _show(session, ending)


def walk(session: Session, known: Known, *, seed: int) -> Ending:
    """Take every step of the road; a step that was taken before is not taken again."""
    from kagflow.rehearse.store import Store

    say = session.out.say
    say(f"1/6  an embedded Kaggle with generated data (seed {seed}) in {session.workspace.home}")
    if not Store(session.workspace.kaggle_store).has_competition(known.config.slug):
        local.generate_mini(session, known, seed=seed)
    say(f"2/6  kagflow fetch {known.name}")
    fetch.fetch(session, known)
    say("3/6  kagflow train")
    for job in _jobs(session, known):
        training.train(session, known, job)
    say("4/6  kagflow ensemble")
    value = ensemble.ensure(session, known)
    say("5/6  kagflow submit --dry-run: the very kernel, its network cut")
    packed = pack.ensure(session, known)
    receipt = submit.rehearse(session, known, packed)
    submit.show_receipt(session, receipt)
    if receipt.verdict == "red":
        raise RefusedError(f"the rehearsal failed: {receipt.failure}: {receipt.sentence}")
    say("6/6  kagflow submit")
    submission = submit.execute(session, known, packed)
    return Ending(value, receipt, submission, floors(session, known), _hours(known))


def floors(session: Session, known: Known) -> dict[str, float]:
    """Return what an all-empty submission scores on each part of the hidden test."""
    from kagflow.rehearse.store import Store
    from kagflow.task import submission
    from kagflow.task.score import score_files

    folder = Store(session.workspace.kaggle_store).competition_folder(known.config.slug)
    spec = known.config.task()
    with tempfile.TemporaryDirectory() as scratch:
        empty = Path(scratch) / "empty.csv"
        submission.write_empty(empty, spec, folder / "hidden" / spec.sample_submission)
        scores: dict[str, Score] = score_files(empty, folder / "solution.csv", spec)
    return {part: score.value for part, score in scores.items()}


def _hours(known: Known) -> float:
    from kagflow.ship.hours import spent
    from kagflow.ship.records import Records

    seconds = spent(Records(user_state()), profile="local", competition=known.name)
    return sum(seconds.values()) / 3600


def _jobs(session: Session, known: Known) -> list[jobs.Job]:
    mini = known.config.mini
    if mini is None:
        raise UsageError(f"{known.name} has no `mini`")
    folds = ",".join(map(str, range(SEGMENTER_FOLDS)))
    planned = jobs.plan(session, known, {"recipe": mini.recipe, "fold": folds})
    if mini.gate:
        planned += jobs.plan(session, known, {"recipe": mini.gate, "fold": "0"})
    return planned


def _first_with_mini(session: Session) -> Known:
    for name in sorted(competitions.folders(session.workspace)):
        known = competitions.find(session.workspace, name)
        if known.config.mini:
            return known
    raise UsageError("no competition here can generate its own data (`mini`)")


def _seed(known: Known, seed: int | None) -> int:
    return seed if seed is not None else (known.config.mini.seed if known.config.mini else 0)


def _own_workspace(session: Session, known: Known, seed: int | None) -> Session:
    """Use the local profile; other seeds get a workspace of their own, since slugs are one."""
    root = session.workspace.root
    if _seed(known, seed) != _seed(known, None):
        root = root / ".kagflow" / f"demo-seed{seed}"
    return Session(session.out, Workspace(root, "local"))


def _show(session: Session, ending: Ending) -> None:
    cv, receipt, submission = ending.ensemble["cv"], ending.receipt, ending.submission
    crossfitted = cv["crossfitted"]
    rows = [
        (
            "CV" if crossfitted is not None else f"CV ({cv['label']})",
            f"{cv['naive'] if crossfitted is None else crossfitted:.4f}",
            f"all-empty {cv['floor']:.4f}; on {cv['images']} of {cv['of']} images; {cv['label']}",
        ),
        ("public score", f"{submission['public']:.4f}", f"all-empty {ending.floors['Public']:.4f}"),
        (
            "private score",
            f"{submission['private']:.4f}",
            f"all-empty {ending.floors['Private']:.4f}",
        ),
        (
            "kernel, projected",
            f"{receipt.projected_minutes or 0:.1f} min",
            f"{receipt.projected_images} images, on this machine, uncalibrated",
        ),
        ("kernel, real", f"{submission['real_minutes']:.1f} min", "the submitted run"),
        ("hours spent", f"{ending.hours:.2f}", "training and kernels"),
    ]
    session.out.table("kagflow demo", ("", "", ""), rows)
    session.out.result(
        {
            "cv": cv,
            "floors": ending.floors,
            "submission": submission,
            "receipt": asdict(receipt),
            "hours": ending.hours,
        },
        "next: kagflow --profile local, kagflow history --profile local",
    )

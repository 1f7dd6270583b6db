"""What comes next of the active competition and what it would cost: untrained folds, a submission.

Runs are the training room's, submissions and hours the ship's; here they meet.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kagflow.cli import competitions
from kagflow.cli.competitions import Known
from kagflow.cli.session import Session
from kagflow.errors import DataError
from kagflow.workspace import user_state

if TYPE_CHECKING:
    from kagflow.learn.untrained import Untrained
    from kagflow.rehearse.receipt import Receipt
    from kagflow.ship.budget import Action

HOW = (
    "OOF gained an hour: by how much the run's finished folds, at default thresholds, beat the "
    "best other run that holds the missing fold (the all-empty file where none does), times that "
    "fold's share of the images, by the hours that its other folds took on the machine named"
)


@dataclass(frozen=True)
class Planned:
    """Hold one thing that may be done next; `fold` None for a submission.

    `left_out` says why a cost is not known: then `action` is None.
    """

    what: str
    action: Action | None
    fold: Untrained | None = None
    left_out: str = ""

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON values."""
        fold = self.fold
        return {
            "what": self.what,
            "least_hours": None if self.action is None else self.action.least / 3600,
            "most_hours": None if self.action is None else self.action.most / 3600,
            "fold": asdict(fold) | {"oof_per_hour": fold.per_hour} if fold else None,
            "unknown": self.left_out or None,
        }


def find(session: Session, state: Path) -> list[Planned]:
    """Return what could be done next in the active competition, most gained per hour first.

    `state` is the client's folder, which holds what is known of Kaggle. Empty where no competition
    is active.
    """
    active = session.workspace.active()
    if active is None or active not in competitions.folders(session.workspace):
        return []
    known = competitions.find(session.workspace, active)
    return [*_folds(session, known), *_submission(session, known, state)]


def save_seconds(receipt: Receipt) -> float | None:
    """Return how long the kernel took to prove itself on a few images, None where it did not."""
    return max((run.seconds for run in receipt.runs if run.mode == "save"), default=None)


def _folds(session: Session, known: Known) -> list[Planned]:
    from kagflow.learn.untrained import untrained
    from kagflow.ship.budget import Action
    from kagflow.task.folds import read_folds

    data, runs = session.workspace.data(known.name), session.workspace.runs(known.name)
    if not (data / "folds.csv").is_file() or not runs.is_dir():
        return []
    sizes = Counter(fold for _, fold in read_folds(data / "folds.csv").values())
    found = untrained(runs, dict(sorted(sizes.items())))
    return [
        Planned(name, Action(name, one.seconds, one.seconds), one)
        for one in found
        for name in (f"{one.run} fold {one.fold}",)
    ]


def _submission(session: Session, known: Known, state: Path) -> list[Planned]:
    """Return the newest pack's submission where it was not made yet."""
    folder = session.workspace.packs(known.name)
    packs = sorted(folder.glob("*/manifest.json"), key=lambda file: file.stat().st_mtime)
    if not packs:
        return []
    pack = packs[-1].parent.name
    if _sent(session, known, pack):
        return []
    what = f"submission of pack {pack}"
    try:
        receipt = _receipt(folder, pack)
    except DataError as error:
        return [Planned(what, None, left_out=error.message)]
    if receipt is None or receipt.projected_minutes is None:
        why = f"{session.command('submit --dry-run')} measures it"
        return [Planned(what, None, left_out=why)]
    return [Planned(what, _cost(known, receipt, state, what))]


def _receipt(folder: Path, pack: str) -> Receipt | None:
    from kagflow.rehearse.receipt import read_receipt

    file = folder / f"{pack}.receipt.json"
    return read_receipt(file) if file.is_file() else None


def _cost(known: Known, receipt: Receipt, state: Path, what: str) -> Action:
    from dataclasses import replace

    from kagflow.ship import assumptions, budget, hours

    if hours.family(known.config.accelerator) is None:
        return budget.Action(what, 0.0, 0.0)
    seen = str(assumptions.value(state, "rerun", known.config.slug))
    action = budget.submission_cost(
        (receipt.projected_minutes or 0.0) * 60,
        save_s=save_seconds(receipt),
        rerun=known.config.rerun if known.config.rerun != "unknown" else seen,
        billed=assumptions.known(state, "rerun_billed"),
        limit_s=known.config.limits.inference_minutes * 60,
    )
    return replace(action, name=what)


def _sent(session: Session, known: Known, pack: str) -> bool:
    from kagflow.ship import history
    from kagflow.ship.records import Records

    rows = history.history(
        Records(user_state()), profile=session.workspace.profile, competition=known.name
    )
    return any(row.pack == pack and row.kernel_version is not None for row in rows)

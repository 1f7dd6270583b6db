"""Hold a submission against the hours that are left, with what its rehearsal measured."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from kagflow.cli import kernels
from kagflow.cli.competitions import Known
from kagflow.cli.kernels import How
from kagflow.cli.pack import Packed
from kagflow.cli.planned import save_seconds
from kagflow.cli.session import Session

if TYPE_CHECKING:
    from kagflow.rehearse.receipt import Receipt
    from kagflow.ship.plan import Measured, SubmitPlan


def on_cpu(known: Known) -> Known:
    """Return a competition whose kernel asks for no accelerator."""
    from kagflow.ship.kernel import NO_ACCELERATOR

    config = known.config.model_copy(update={"accelerator": NO_ACCELERATOR})
    return replace(known, config=config)


def named(accelerator: str | None) -> str:
    """Return a machine shape in words."""
    from kagflow.ship.hours import family

    return str(accelerator) if family(accelerator or "") else "no accelerator"


def measured(packed: Packed, how: How) -> Measured:
    """Return what a pack's rehearsal measured, nothing where there was none."""
    from kagflow.rehearse.receipt import read_receipt
    from kagflow.ship.plan import Measured

    file = kernels.beside(packed, "receipt.json", how.notebook)
    if not file.is_file():
        return Measured()
    receipt = read_receipt(file)
    minutes = cpu_minutes(receipt) if how.offer else None
    return Measured(save_seconds(receipt), minutes, how.offer)


def cpu_minutes(receipt: Receipt) -> float | None:
    """Return the minutes that a receipt projects for a CPU like this one's, None for no idea."""
    if not receipt.device.startswith("cpu"):
        return None
    if not receipt.calibrated:
        return receipt.projected_minutes
    if receipt.seconds_per_image is None or receipt.projected_images is None:
        return None
    return receipt.seconds_per_image * receipt.projected_images / 60


def show(session: Session, plan: SubmitPlan) -> None:
    """Say whether the submission fits into the hours that are left, and what else would."""
    from kagflow.ship.budget import ways

    if not plan.pushes:
        return
    session.out.say(f"hours: {plan.judgement.describe()}")
    if not plan.judgement.fits:
        session.out.warn(f"{'; '.join(ways(plan.judgement))}")


def require(plan: SubmitPlan) -> None:
    """Raise RemoteError where the kernel is yet to be pushed and its hours do not fit."""
    from kagflow.ship import budget

    if plan.pushes:
        budget.require(plan.judgement, over_quota=plan.over_quota)

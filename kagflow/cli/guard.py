"""Hold a submission against the hours that are left, with what its rehearsal measured."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from kagflow.cli import ensemble, kernels
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


def how(session: Session, words: Sequence[str], *, name: str, **asked: bool) -> How:
    """Return what the words and flags of a submission ask for, with the commands that belong to it.

    Whoever continues a submission must not ask for another one, but for the same kernel.
    """
    given = ["submit", *words, *([] if name == ensemble.DEFAULT else ["--ensemble", name])]

    def command(**changes: bool) -> str:
        flags = (f"--{flag.replace('_', '-')}" for flag, on in {**asked, **changes}.items() if on)
        return session.command(shlex.join([*given, *flags]))

    offer = "" if asked["cpu"] else command(cpu=True, over_quota=False)
    known = {flag: asked[flag] for flag in ("again", "notebook", "over_quota")}
    return How(**known, offer=offer, same=command(), go_on=command(again=False))


def named(accelerator: str | None) -> str:
    """Return a machine shape in words."""
    from kagflow.ship.hours import family

    return str(accelerator) if family(accelerator or "") else "no accelerator"


def left(plan: SubmitPlan) -> str:
    """Return the hours left for a kernel's accelerator in words."""
    from kagflow.ship.hours import family

    if family(plan.accelerator) is None:
        return "none are needed"
    return "not known" if plan.quota_left_s is None else f"{plan.quota_left_s / 3600:.2f}"


def earlier(plan: SubmitPlan) -> str:
    """Return the number of an attempt that is not the first, and what became of the one before."""
    last = plan.previous
    if last is None or last.attempt == plan.attempt:
        return f"{plan.attempt}, continued" if last else str(plan.attempt)
    why = f": {last.error}" if last.error else ""
    return f"{plan.attempt}; the one before {last.status}{why}"


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


def hold(session: Session, plan: SubmitPlan, *, dry_run: bool) -> None:
    """Say whether the submission fits into the hours that are left, and what else would.

    Raises RemoteError where the kernel is yet to be pushed and its hours do not fit, unless that
    was asked for or nothing will be pushed.
    """
    from kagflow.ship import budget

    if not plan.pushes:
        return
    if plan.submissions_left == 0:
        session.out.warn(
            "no submission is left today: the kernel runs all the same, and the same command "
            "submits it after 00:00 UTC"
        )
    if not dry_run:
        budget.require(plan.judgement, over_quota=plan.over_quota)
    on = f"; {budget.OVER} goes on" if plan.over_quota and not plan.judgement.fits else ""
    session.out.say(f"hours: {plan.judgement.describe()}{on}")
    if not (plan.judgement.fits or plan.over_quota):
        session.out.warn("; ".join(budget.ways(plan.judgement)))

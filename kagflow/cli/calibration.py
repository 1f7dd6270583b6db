"""Join what a kernel took on Kaggle with what its rehearsal took here."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from kagflow.cli import guard, remotes
from kagflow.cli.session import Session
from kagflow.workspace import user_state

if TYPE_CHECKING:
    from kagflow.rehearse.receipt import Receipt
    from kagflow.ship.plan import SubmitPlan
    from kagflow.task.costs import Pair


def pairs(session: Session, accelerator: str) -> tuple[Pair, ...]:
    """Return what was measured on an accelerator under this profile."""
    from kagflow.ship import costs

    return tuple(costs.read(remotes.client_state(session), accelerator))


def settled(session: Session, receipt: Receipt, out: Path, accelerator: str) -> Receipt:
    """Return an earlier receipt with what is known of the accelerator now, and keep it."""
    from kagflow.rehearse.settle import settle

    found = settle(receipt, pairs(session, accelerator), accelerator)
    if found != receipt:
        found.write(out)
    return found


def learn(session: Session, plan: SubmitPlan, receipt: Path) -> None:
    """Keep what the submitted kernel's saved run took, if it told, beside what it took here."""
    from kagflow.rehearse.receipt import read_receipt
    from kagflow.ship import costs
    from kagflow.ship.records import Records, StepRow, SubmissionRow, now
    from kagflow.task.costs import Costs, Pair

    records = Records(user_state())
    whose = {"profile": plan.profile, "account": plan.account, "competition": plan.competition}
    rows = records.select(SubmissionRow, pack=plan.pack, attempt=plan.attempt, **whose)
    results = [
        dict(step.result or {})
        for row in rows
        for step in records.select(StepRow, job=f"submission:{row.id}", name="run")
    ]
    told = next((one["costs"] for one in results if one.get("costs")), None)
    here = read_receipt(receipt).costs if receipt.is_file() else None
    if told is None or here is None:
        return
    subject = f"{rows[-1].kernel}/v{rows[-1].kernel_version}"
    state, pair = remotes.client_state(session), Pair(
        plan.accelerator, now(), "kernel", subject, Costs.from_dict(told), Costs.from_dict(here)
    )  # fmt: skip
    known = [one.there for one in costs.read(state) if one.subject == subject]
    if pair.there not in known:
        costs.note(state, pair)
        where = guard.named(plan.accelerator)
        if plan.profile == "local":
            # The embedded Kaggle grants any accelerator and runs all on the machine that it is on.
            where = f"this machine, which stands in for {where}"
        session.out.say(f"kept what {subject} took an image on {where}")


def rows(receipt: Receipt) -> list[tuple[str, Any]]:
    """Return the lines of a receipt's table about time, none where nothing was measured."""
    minutes, where = receipt.projected_minutes, receipt.where
    if minutes is None:
        return []
    images, limit = receipt.projected_images, f"limit {receipt.limit_minutes:.0f} min"
    if receipt.projected_p95 is not None:
        said = f"{minutes:.1f} min (P95 {receipt.projected_p95:.1f}) for {images} images on {where}"
        return [("projected", f"{said}; {limit}")]
    least = receipt.projected_least
    between = f"{minutes:.1f}" if least is None else f"{least:.1f} to {minutes:.1f}"
    said = f"{between} min for {images} images at this machine's pace, uncalibrated for {where}"
    return [("projected", f"{said}; {limit}")]

"""Leave a submission under way: what goes on without this machine, and which command shows it."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import typer

from kagflow.cli.session import INTERRUPTED, Session
from kagflow.workspace import user_state

if TYPE_CHECKING:
    from kagflow.ship.plan import SubmitPlan
    from kagflow.ship.records import Records, SubmissionRow


@contextlib.contextmanager
def told(session: Session, plan: SubmitPlan, go_on: str = "") -> Iterator[None]:
    """Say at Ctrl-C what goes on on Kaggle and which command continues, and leave with 130."""
    from kagflow.ship.records import Records

    try:
        yield
    except KeyboardInterrupt:
        records = Records(user_state())
        row = _row(records, plan)
        submit = go_on or session.command("submit")
        text = _text(session, plan, records, row, submit)
        session.out.warn(text)
        session.out.result(_value(session, plan, row, text))
        raise typer.Exit(INTERRUPTED) from None


def _row(records: Records, plan: SubmitPlan) -> SubmissionRow | None:
    from kagflow.ship.records import SubmissionRow

    where = {"profile": plan.profile, "account": plan.account, "competition": plan.competition}
    found = records.select(SubmissionRow, pack=plan.pack, attempt=plan.attempt, **where)
    return found[0] if found else None


def _text(
    session: Session, plan: SubmitPlan, records: Records, row: SubmissionRow | None, submit: str
) -> str:
    history = session.command(f"history {plan.pack}")
    if row is not None and row.ref is not None:
        return (
            f"detached: submission {row.ref} is scored without this machine; "
            f"{session.command(f'history {row.ref}')} asks for its score and notes it"
        )
    if row is not None and row.kernel_version is not None:
        return (
            f"detached: kernel {row.kernel} version {row.kernel_version} goes on without this "
            f"machine, {plan.most_s / 60:.0f} minutes at most, and nothing stops it from here; "
            f"{history} shows what became of it, {submit} waits on and submits it"
        )
    if row is not None and _was_pushing(records, row):
        return (
            "interrupted while the kernel was pushed: it may run; "
            f"{history} finds out, {submit} continues"
        )
    return f"interrupted before the kernel was pushed: nothing runs; {submit} continues"


def _was_pushing(records: Records, row: SubmissionRow) -> bool:
    from kagflow.ship.records import StepRow

    steps = records.select(StepRow, job=f"submission:{row.id}", name="kernel")
    return any(step.state == "intent" for step in steps)


def _value(
    session: Session, plan: SubmitPlan, row: SubmissionRow | None, text: str
) -> dict[str, Any]:
    return {
        "detached": text,
        "pack": plan.pack,
        "status": row.status if row else "planned",
        "kernel": row.kernel if row else None,
        "kernel_version": row.kernel_version if row else None,
        "ref": row.ref if row else None,
        "next": session.command("history"),
        "exit_code": INTERRUPTED,
    }

"""Tell what a `kagflow train` came to."""

from __future__ import annotations

from typing import Any

from kagflow.cli import words
from kagflow.cli.session import Session
from kagflow.cli.sweep import Outcome


def report(session: Session, outcome: Outcome, *, again: str) -> dict[str, Any]:
    """Print what was trained, what failed and what remains; return it as JSON values.

    `again` is the command that goes on with what remains.
    """
    rows = [
        (
            one["run"],
            one["fold"],
            one["images"],
            _score(one["score"]),
            _score(one["floor"]),
            f"{one['seconds']:.0f}",
        )
        for one in outcome.finished
    ]
    columns = ("run", "fold", "images", "score (one fold, untuned)", "all-empty", "seconds")
    if rows:
        session.out.table("trained", columns, rows)
    unfinished = bool(outcome.begun or outcome.left)
    next_command = again if unfinished else session.command("submit --dry-run")
    value = {
        "runs": outcome.finished,
        "failed": [
            {"run": one.job.run, "fold": one.job.fold}
            | {"error": one.error, "hint": one.hint, "trace": one.trace}
            for one in outcome.failed
        ],
        "remaining": outcome.begun
        + [{"run": job.run, "fold": job.fold, "remaining": None} for job in outcome.left],
        "next": next_command,
    }
    for paused in outcome.begun:
        session.out.say(_paused(paused))
    if outcome.left:
        what = "interrupted or not begun" if outcome.interrupted else "not begun"
        session.out.say(f"{what}: " + "; ".join(job.label for job in outcome.left))
    show = outcome.finished or unfinished
    session.out.result(value, f"next: {next_command}" if show else "")
    if outcome.failed:
        total = len(outcome.failed) + len(outcome.finished)
        session.out.warn(f"{len(outcome.failed)} of {total} runs failed:")
        for one in outcome.failed:
            session.out.warn(f"{one.job.label}: {one.error} {one.hint}")
    return value


def _paused(one: dict[str, Any]) -> str:
    left = one["remaining"]
    return (
        f"{one['run']} fold {one['fold']}: the budget ended at step {left['step']} of "
        f"{left['steps']}, all saved; {left['epochs']:.1f} epochs and the prediction remain, "
        f"about {words.span(left['seconds'])}"
    )


def _score(value: float | None) -> str:
    return "-" if value is None else f"{value:.4f}"

"""kagflow train --find-lr: suggest a learning rate for each recipe, train nothing."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from kagflow.cli.competitions import Known
from kagflow.cli.jobs import Job
from kagflow.cli.session import Session
from kagflow.cli.training import How, wanted


def find(session: Session, known: Known, planned: Sequence[Job], how: How) -> dict[str, Any]:
    """Run the range test on the first fold of each run, print and return what it suggests."""
    from kagflow.learn.lr_finder import describe, find_lr, sparkline, write

    rows, values = [], []
    for job in {one.run: one for one in reversed(planned)}.values():
        session.out.say(f"learning rate for {job.label}")
        found = find_lr(
            wanted(session, known, job, how, how.device), progress=session.out.progress()
        )
        path = write(found, job.folder)
        suggested = f"{found.suggestion:.2g}"
        rows.append((job.run, f"{job.recipe.optimiser.lr:g}", suggested, sparkline(found.points)))
        values.append({"run": job.run, "csv": str(path), **describe(found)})
    columns = ("run", "the recipe's", "suggested", "smoothed loss, rates from 1e-6 to 1")
    session.out.table("learning rates", columns, rows)
    words = f"train {known.name} optimiser.lr={rows[0][2]}"
    value = {"rates": values, "next": session.command(words)}
    session.out.result(value, f"next: {session.command(words)}, and your other words")
    return value

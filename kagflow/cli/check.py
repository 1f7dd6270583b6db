"""kagflow check: is this submission CSV what Kaggle will accept?"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from kagflow.cli import competitions
from kagflow.cli.session import guarded, open_session
from kagflow.errors import DataError

SHOWN = 20


@guarded
def command(
    context: typer.Context,
    submission: Annotated[Path, typer.Argument(help="A submission CSV.")],
    competition: Annotated[str | None, typer.Option(help="Default: the active one.")] = None,
) -> None:
    """Check a submission CSV against the competition's sample: ids, order, columns, run lengths."""
    from kagflow.task.submission import check_submission

    session = open_session(context)
    known = competitions.find(session.workspace, competition)
    competitions.manifest(session.workspace, known)
    spec = known.config.task()
    sample = session.workspace.data(known.name) / spec.sample_submission
    faults = check_submission(submission, spec, sample, None)
    if faults:
        shown = "; ".join(f"row {fault.row}: {fault.what}" for fault in faults[:SHOWN])
        more = f"; and {len(faults) - SHOWN} more" if len(faults) > SHOWN else ""
        raise DataError(f"{submission}: {shown}{more}", hint="mend the rows named above")
    session.out.result({"submission": str(submission), "faults": []}, f"{submission} is valid")

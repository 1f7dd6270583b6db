"""Tell what is wrong with a submission CSV, every fault of it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from kagflow.cli.competitions import Known
from kagflow.cli.session import Session
from kagflow.errors import DataError

if TYPE_CHECKING:
    from kagflow.task.loose import Fault


def check(session: Session, known: Known, submission: Path) -> None:
    """Check a submission CSV against the fetched competition; leave with 6 where it is faulty."""
    from kagflow.task import sizes, table
    from kagflow.task.check import check_submission
    from kagflow.task.submission import expected_keys

    spec, data = known.config.task(), session.workspace.data(known.name)
    sample = data / spec.sample_submission
    asked = dict.fromkeys(image for image, _ in expected_keys(table.read_table(sample), spec))
    fits = sizes.known_sizes(data, spec, asked)
    faults = check_submission(submission, spec, sample, fits)
    blind = len(asked) - len(fits) if spec.kind == "segmentation" else 0
    if blind:
        session.out.warn(
            f"the size of {blind} images is not known: their masks may end beyond the image"
        )
    value = {
        "submission": str(submission),
        "valid": not faults,
        "unknown_sizes": blind,
        "faults": [asdict(fault) for fault in faults],
    }
    if not faults:
        session.out.result(value, f"{submission} is valid")
        return
    error = _error(submission, faults)
    told = {"error": error.message, "hint": error.hint, "exit_code": error.exit_code}
    session.out.result(value | told, "\n".join(map(str, faults)))
    if not session.out.json_mode:
        session.out.error(error)
    raise typer.Exit(error.exit_code)


def _error(submission: Path, faults: Sequence[Fault]) -> DataError:
    kinds = Counter(fault.kind for fault in faults)
    counted = ", ".join(f"{kind} {count}" for kind, count in kinds.most_common())
    return DataError(
        f"{submission}: {len(faults)} {'fault' if len(faults) == 1 else 'faults'} ({counted})",
        hint="mend what is named above; kagflow predict and submit write valid files",
    )

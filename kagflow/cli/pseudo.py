"""Before a training with pseudo-labels begins: is there an ensemble that may give them?"""

from __future__ import annotations

from collections.abc import Sequence

from kagflow.cli import ensemble, jobs
from kagflow.cli.competitions import Known
from kagflow.cli.jobs import Job
from kagflow.cli.session import Session
from kagflow.cli.training import How, wanted
from kagflow.errors import UsageError


def check(session: Session, known: Known, planned: Sequence[Job], how: How) -> None:
    """Look for each job's ensemble; the default one is made where there is none yet.

    An ensemble that is there is taken as it is: the folds of a run must not learn from different
    ones because the first of them has finished meanwhile. Raises UsageError listing every fault.
    """
    if all(job.recipe.pseudo is None for job in planned):
        return
    from kagflow.learn import pseudo

    asking = [
        job
        for job in planned
        if job.recipe.pseudo is not None and pseudo.noted_store(job.folder) is None
    ]
    default = ensemble.path(session, known, ensemble.DEFAULT)
    if any(job.recipe.pseudo == ensemble.DEFAULT for job in asking) and not default.is_file():
        ensemble.ensure(session, known)
    faults: dict[str, UsageError] = {}
    for job in asking:
        try:
            pseudo.find_teacher(wanted(session, known, job, how, "auto"))
        except UsageError as error:
            faults.setdefault(error.message, error)
    jobs.raise_all(list(faults.values()))

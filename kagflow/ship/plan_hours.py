"""Hold a submission's forecast against the hours that its account has left."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kagflow.ship import assumptions, budget, hours
from kagflow.ship.budget import Judgement
from kagflow.ship.records import Records
from kagflow.ship.remote import Remote
from kagflow.ship.remote_types import Quota

if TYPE_CHECKING:
    from kagflow.ship.plan import SubmitRequest


def judge(
    request: SubmitRequest, remote: Remote, records: Records, *, accelerator: str, rerun: str
) -> Judgement:
    """Return whether a submission fits; its seconds left are None where it needs none."""
    view = remote.quota()
    quota = {"gpu": view.gpu, "tpu": view.tpu}.get(hours.family(accelerator) or "")
    left = quota_left(quota, accelerator, remote, records)
    cost = _cost(request, remote, accelerator, rerun)
    return Judgement((cost,), left, view.refresh, _cpu(request))


def _cost(request: SubmitRequest, remote: Remote, accelerator: str, rerun: str) -> budget.Action:
    """Return the accelerator seconds of a submission; what was not projected takes all its time."""
    if hours.family(accelerator) is None:
        return budget.Action(budget.SUBMISSION, 0.0, 0.0)
    projected = request.facts.get("projected_p50")
    return budget.submission_cost(
        request.timeout_s if projected is None else projected * 60,
        save_s=request.measured.save_s,
        rerun=rerun,
        billed=assumptions.known(remote.state, "rerun_billed"),
        limit_s=request.timeout_s,
    )


def _cpu(request: SubmitRequest) -> budget.Cpu | None:
    minutes = request.measured.cpu_minutes
    if minutes is None:
        return None
    return budget.Cpu(minutes, request.timeout_s / 60, request.measured.cpu_command)


def quota_left(
    quota: Quota | None, accelerator: str, remote: Remote, records: Records
) -> float | None:
    """Return the seconds left this week, less what ended too lately for Kaggle to count it."""
    if quota is None:
        return None
    late = hours.ended_within(
        records,
        assumptions.value(remote.state, "quota_lag_s"),
        profile=remote.profile,
        account=remote.account(),
        accelerator=accelerator,
    )
    return max(0.0, quota.left - late)

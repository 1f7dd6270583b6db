"""Do what a plan says: every step noted before and after, so that a rerun continues.

One attempt goes: claim its row, a version of each dataset, wait until it is live, kernel push, wait
for the run, submit that very version, wait for the score. What happened on Kaggle but was not noted
here is found again by hash: in version notes, in the kernel's source, in submission messages.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from kagflow.errors import RefusedError, RemoteError
from kagflow.progress import QUIET, Progress
from kagflow.ship import assumptions, budget, notebook, settle
from kagflow.ship.plan import SubmitPlan, SubmitRequest, make_plan
from kagflow.ship.records import Records, SubmissionRow, now
from kagflow.ship.remote import Remote
from kagflow.ship.remote_datasets import DatasetPush
from kagflow.ship.remote_types import KernelPush, KernelStatus, LogLine
from kagflow.ship.waits import follow_kernel, poll
from kagflow.task import costs

__all__ = ["SubmitPlan", "SubmitRequest", "Submitted", "execute", "make_plan"]

OUTPUT = "submission.csv"
WAIT = 5.0  # seconds for another kagflow that submits the same pack
READY_FACTOR = 6  # a pack takes so much longer to bind than a probe of a kilobyte
QUEUE_S = 7200.0  # seconds a session may wait for a machine
SCORING_S = 43200.0  # seconds until a score is given up, as the official client has it


@dataclass(frozen=True)
class Submitted:
    """Say what became of a submission; `already` where an earlier one is the answer."""

    row: SubmissionRow
    already: bool


def execute(
    plan: SubmitPlan, remote: Remote, records: Records, *, progress: Progress = QUIET
) -> Submitted:
    """Carry the plan out, continuing where an earlier try of the same attempt stopped.

    Interrupting loses nothing. Raises RemoteError where Kaggle refuses or the kernel or its
    scoring fails, RefusedError where this pack's submission failed before and `again` is not set
    or another kagflow submits it now.
    """
    with _alone(plan, records):
        row = records.add(_row(plan))
        if row.status == "failed":
            raise RefusedError(
                f"pack {plan.pack} was submitted before and failed: {row.error}",
                hint="kagflow submit --again submits it once more",
            )
        if row.status == "scored":
            return Submitted(row, already=True)
        return Submitted(_Attempt(plan, remote, records, progress).run(row), already=False)


class _Attempt:
    def __init__(
        self, plan: SubmitPlan, remote: Remote, records: Records, progress: Progress
    ) -> None:
        self.plan, self.remote, self.records, self.progress = plan, remote, records, progress

    def run(self, row: SubmissionRow) -> SubmissionRow:
        pinned = tuple(self._dataset(row, one.push) for one in self.plan.datasets)
        row = self._kernel(self._update(row, datasets=pinned))
        row = self._wait_for_run(row)
        row = self._submit(row)
        return self._wait_for_score(row)

    def _dataset(self, row: SubmissionRow, push: DatasetPush) -> str:
        """Bring up one half of the pack and return its version as a kernel's source."""

        def send() -> dict[str, Any]:
            version = self.remote.dataset_create_or_version(push, progress=self.progress)
            slow_s = assumptions.value(self.remote.state, "dataset_ready_s")
            limit_s = max(3600.0, READY_FACTOR * slow_s)
            self.remote.dataset_wait(push, version, progress=self.progress, limit_s=limit_s)
            return {"ref": push.ref, "version": version}

        name = f"dataset {push.ref.partition('/')[2]}"
        got = self._step(row, name, {"ref": push.ref, "mark": push.mark}, send)
        return f"{got['ref']}/{got['version']}"

    def _kernel(self, row: SubmissionRow) -> SubmissionRow:
        push = kernel_push(self.plan, row.datasets)

        def send() -> dict[str, Any]:
            pushed = self.remote.find_kernel(push)
            if pushed is None:
                budget.require(self.plan.judgement, over_quota=self.plan.over_quota)
                self._update(row, accelerator=self.plan.accelerator)
                pushed = self.remote.push_kernel(push)
            return {"ref": pushed.ref, "version": pushed.version, "at": now()}

        got = self._step(row, "kernel", {"ref": push.ref, "datasets": list(push.datasets)}, send)
        return self._update(
            row,
            kernel=got["ref"],
            kernel_version=got["version"],
            pushed_at=got["at"],
            status="running" if row.status == "planned" else row.status,
        )

    def _wait_for_run(self, row: SubmissionRow) -> SubmissionRow:
        kernel, version = str(row.kernel), int(row.kernel_version or 0)
        settle.begin(self.records, row, "kernel")

        def wait() -> dict[str, Any]:
            limit_s = self.plan.timeout_s + QUEUE_S
            status = follow_kernel(
                self.remote, kernel, version, limit_s=limit_s, progress=self.progress
            )
            log = self.remote.kernel_log(kernel, version)
            closed = settle.end_run(self.records, row, log)
            if not status.complete:
                raise self._kernel_failed(row, status, log)
            told = costs.from_log("".join(line.text for line in log).splitlines())
            return {"seconds": closed.seconds, "costs": told}

        got = self._step(row, "run", {"kernel": kernel, "version": version}, wait)
        return self._update(row, real_minutes=(got["seconds"] or 0.0) / 60)

    def _submit(self, row: SubmissionRow) -> SubmissionRow:
        plan = self.plan

        def send() -> dict[str, Any]:
            known = self.remote.submissions(plan.slug)
            ref = next((item.ref for item in known if plan.token in item.description), None)
            if ref is None:
                self._check_limits()
                ref = self.remote.submit(
                    plan.slug,
                    str(row.kernel),
                    version=int(row.kernel_version or 0),
                    file=OUTPUT,
                    message=plan.message,
                )
            return {"ref": ref, "at": now()}

        effect = {"kernel": row.kernel, "version": row.kernel_version, "message": plan.message}
        got = self._step(row, "submit", effect, send)
        return self._update(row, ref=got["ref"], submitted_at=got["at"], status="submitted")

    def _wait_for_score(self, row: SubmissionRow) -> SubmissionRow:
        ref = int(row.ref or 0)
        settle.begin(self.records, row, "submission")
        self.progress.start(f"wait for the score of submission {ref}")
        try:
            item = poll(
                self.remote,
                lambda: self.remote.submission(ref),
                lambda item: item.status in {"COMPLETE", "ERROR"},
                limit_s=SCORING_S,
                what=f"submission {ref}",
            )
        finally:
            self.progress.finish()
        closed = settle.end_scoring(self.records, row)
        if item.status == "ERROR":
            failed = settle.scoring_failed(self.records, row, item)
            raise RemoteError(
                f"submission {ref} failed: {failed.error}", hint=f"kagflow history {ref}"
            )
        return settle.scored(
            self.records,
            row,
            item,
            state=self.remote.state,
            rerun=self.plan.rerun,
            rerun_s=closed.seconds or 0.0,
        )

    def _kernel_failed(
        self, row: SubmissionRow, status: KernelStatus, log: tuple[LogLine, ...]
    ) -> RemoteError:
        failed = settle.run_failed(self.records, row, status, log)
        head = f"kernel {row.kernel} version {row.kernel_version} failed: {failed.error}"
        likely = [f"likely: {failed.cause}"] if failed.cause else []
        return RemoteError(
            "\n".join([head, *likely, *(failed.detail or {})["log"]]),
            hint="mend it and run the same command again",
        )

    def _check_limits(self) -> None:
        limits = self.remote.limits(self.plan.slug)
        if limits.left == 0:
            raise RemoteError(
                f"{self.plan.slug}: all {limits.today} submissions of today (UTC) are used",
                hint="run the same command again after 00:00 UTC: it continues",
            )

    def _step(
        self,
        row: SubmissionRow,
        name: str,
        effect: Mapping[str, Any],
        do: Callable[[], dict[str, Any]],
    ) -> Mapping[str, Any]:
        step = self.records.intend(f"submission:{row.id}", name, effect)
        if step.result is None:
            step = self.records.done(step, do())
        return step.result or {}

    def _update(self, row: SubmissionRow, **values: Any) -> SubmissionRow:
        return self.records.update(SubmissionRow, row.id, **values)


def kernel_push(plan: SubmitPlan, pinned: tuple[str, ...]) -> KernelPush:
    """Return the push of a plan; its last line makes the source this attempt's own.

    A push is found again by its source, and two packs may have the same script.
    """
    return KernelPush(
        ref=plan.kernel,
        title=plan.title,
        text=notebook.append(plan.script.read_text(), f"# {plan.token}"),
        datasets=pinned,
        competition=plan.slug,
        machine_shape=plan.accelerator,
        docker_image=plan.image,
        timeout_s=plan.timeout_s,
        kernel_type=plan.kernel_type,
    )


def _row(plan: SubmitPlan) -> SubmissionRow:
    return SubmissionRow(
        profile=plan.profile,
        account=plan.account,
        competition=plan.competition,
        pack=plan.pack,
        attempt=plan.attempt,
        accelerator=plan.accelerator,
        message=plan.message,
        intent_at=now(),
        detail={"rerun": plan.rerun},
        **plan.facts,
    )


@contextlib.contextmanager
def _alone(plan: SubmitPlan, records: Records) -> Iterator[None]:
    from filelock import FileLock, Timeout

    path = records.path.parent / f"submit-{plan.profile}-{plan.pack}.lock"
    try:
        with FileLock(path, timeout=WAIT):
            yield
    except Timeout:
        raise RefusedError(
            f"another kagflow is submitting pack {plan.pack}", hint="kagflow history shows it"
        ) from None

"""Do what a plan says: every step noted before and after, so that a rerun continues.

One attempt goes: claim its row, a version of each dataset, wait until it is live, kernel push, wait
for the run, submit that very version, wait for the score. What happened on Kaggle but was not noted
here is found again by hash: in version notes, in the kernel's source, in submission messages.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

from kagflow.errors import RefusedError, RemoteError
from kagflow.progress import QUIET, Progress
from kagflow.ship import assumptions, budget, notebook, settle
from kagflow.ship.plan import SubmitPlan, SubmitRequest, make_plan
from kagflow.ship.records import Records, SubmissionRow, now
from kagflow.ship.remote import Remote
from kagflow.ship.remote_datasets import DatasetPush
from kagflow.ship.remote_types import KernelPush, KernelStatus, LogLine, Submission
from kagflow.ship.steps import Steps
from kagflow.ship.waits import follow_kernel, poll, push_when_free
from kagflow.task import costs

__all__ = ["SubmitPlan", "SubmitRequest", "Submitted", "execute", "make_plan"]

OUTPUT = "submission.csv"
PROJECTED = ("projected_p50", "projected_p95", "receipt")
TOMORROW = "run the same command again after 00:00 UTC: it continues"
WAIT = 5.0  # seconds for another kagflow that submits the same pack
READY_FACTOR = 6  # a pack takes so much longer to bind than a probe of a kilobyte
QUEUE_S = 7200.0  # seconds a session may wait for a machine, and a push for a session that ends
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
                hint="the same command with --again submits it once more",
            )
        if row.status == "scored":
            return Submitted(row, already=True)
        return Submitted(_Attempt(plan, remote, records, progress).run(row), already=False)


class _Attempt:
    def __init__(
        self, plan: SubmitPlan, remote: Remote, records: Records, progress: Progress
    ) -> None:
        self.plan, self.remote, self.records, self.progress = plan, remote, records, progress
        self.began = now()

    def run(self, row: SubmissionRow) -> SubmissionRow:
        self.steps = Steps(self.records, f"submission:{row.id}", self.remote.transport.sleep)
        pinned = tuple(self._dataset(one.push) for one in self.plan.datasets)
        row = self._kernel(self._update(row, datasets=pinned))
        row = self._wait_for_run(row)
        row = self._submit(row)
        return self._wait_for_score(row)

    def _dataset(self, push: DatasetPush) -> str:
        """Bring up one half of the pack and return its version as a kernel's source."""
        slow_s = assumptions.value(self.remote.state, "dataset_ready_s")
        limit_s = max(3600.0, READY_FACTOR * slow_s)

        def live(version: int) -> dict[str, Any]:
            self.remote.dataset_wait(push, version, progress=self.progress, limit_s=limit_s)
            return {"ref": push.ref, "version": version}

        def look(_since: str) -> dict[str, Any] | None:
            known = self.remote.dataset(push.ref)
            version = known.version_with(push.mark) if known else None
            return None if version is None else live(version)

        def send() -> dict[str, Any]:
            return live(self.remote.dataset_create_or_version(push, progress=self.progress))

        name = f"dataset {push.ref.partition('/')[2]}"
        got = self.steps.effect(name, {"ref": push.ref, "mark": push.mark}, look, send)
        return f"{got['ref']}/{got['version']}"

    def _kernel(self, row: SubmissionRow) -> SubmissionRow:
        plan, push = self.plan, kernel_push(self.plan, row.datasets)

        def look(since: str) -> dict[str, Any] | None:
            there = self.remote.find_kernel(push)
            if there is None and since < self.began:
                # Another pack's kernel may have been pushed since an earlier try.
                there = self.remote.find_version(push.ref, partial(notebook.same, push.text))
            return {"ref": there.ref, "version": there.version, "at": since} if there else None

        def send() -> dict[str, Any]:
            budget.require(plan.judgement, over_quota=plan.over_quota)
            # Another try may have planned another machine.
            told = {key: plan.facts[key] for key in PROJECTED if key in plan.facts}
            self._update(row, accelerator=plan.accelerator, **told)
            made = push_when_free(self.remote, push, limit_s=QUEUE_S, progress=self.progress)
            return {"ref": made.ref, "version": made.version, "at": now()}

        effect = {"ref": push.ref, "datasets": list(push.datasets), "mark": f"# {plan.token}"}
        got = self.steps.effect("kernel", effect, look, send)
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
            ended = self.remote.kernel_status(kernel, version).ended
            status = follow_kernel(
                self.remote, kernel, version, limit_s=limit_s, progress=self.progress
            )
            log = self.remote.kernel_log(kernel, version)
            closed = settle.end_run(self.records, row, status, log, noticed=ended)
            if not status.complete:
                raise self._kernel_failed(row, status, log, closed.seconds or 0.0)
            told = costs.from_log("".join(line.text for line in log).splitlines())
            return {"seconds": closed.seconds, "costs": told}

        got = self.steps.once("run", {"kernel": kernel, "version": version}, wait)
        return settle.ran(self.records, row, got["seconds"] or 0.0)

    def _submit(self, row: SubmissionRow) -> SubmissionRow:
        plan = self.plan

        def look(since: str) -> dict[str, Any] | None:
            known = self.remote.submissions(plan.slug)
            ref = next((item.ref for item in known if plan.token in item.description), None)
            return None if ref is None else {"ref": ref, "at": since}

        def send() -> dict[str, Any]:
            self._check_limits()
            version = int(row.kernel_version or 0)
            try:
                ref = self.remote.submit(
                    plan.slug, str(row.kernel), version=version, file=OUTPUT, message=plan.message
                )
            except RemoteError as error:
                # Somebody may have taken the last one of today since it was counted.
                late = "allowance" in error.message.lower()
                raise RemoteError(error.message, hint=TOMORROW if late else error.hint) from None
            return {"ref": ref, "at": now()}

        effect = {"kernel": row.kernel, "version": row.kernel_version, "message": plan.message}
        effect |= {"slug": plan.slug}
        got = self.steps.effect("submit", effect, look, send)
        return self._update(row, ref=got["ref"], submitted_at=got["at"], status="submitted")

    def _wait_for_score(self, row: SubmissionRow) -> SubmissionRow:
        ref = int(row.ref or 0)
        settle.begin(self.records, row, "submission")
        # What ended while nobody looked took less than the time until somebody did.
        watched = not self.remote.submission(ref).ended
        item = self._scored(ref)
        closed = settle.end_scoring(self.records, row, noticed=not watched)
        state, rerun, rerun_s = self.remote.state, self.plan.rerun, closed.seconds or 0.0
        if item.status == "ERROR":
            failed = settle.scoring_failed(
                self.records, row, item, state=state, rerun=rerun, rerun_s=rerun_s
            )
            raise RemoteError(
                f"submission {ref} failed: {failed.error}",
                hint=self.plan.command(f"history {ref}"),
            )
        return settle.scored(
            self.records,
            row,
            item,
            state=state,
            rerun=rerun,
            rerun_s=rerun_s,
            watched=watched,
        )

    def _scored(self, ref: int) -> Submission:
        self.progress.start(f"wait for the score of submission {ref}")
        try:
            return poll(
                self.remote,
                lambda: self.remote.submission(ref),
                lambda item: item.ended,
                limit_s=SCORING_S,
                what=f"submission {ref}",
            )
        finally:
            self.progress.finish()

    def _kernel_failed(
        self, row: SubmissionRow, status: KernelStatus, log: tuple[LogLine, ...], seconds: float
    ) -> RemoteError:
        failed = settle.run_failed(self.records, row, status, log, seconds=seconds)
        head = f"kernel {row.kernel} version {row.kernel_version} failed: {failed.error}"
        detail = failed.detail or {}
        by = f", by: {detail['telling']}" if detail["telling"] else ""
        likely = [f"likely: {failed.cause}{by}"] if failed.cause else []
        return RemoteError(
            "\n".join([head, *likely, *detail["log"]]),
            hint=f"{self.plan.command(f'history {row.pack}')} says which check is for that; mend "
            f"it, then {self.plan.command('submit --dry-run --full')}, and the same command again",
        )

    def _check_limits(self) -> None:
        limits = self.remote.limits(self.plan.slug)
        if limits.left == 0:
            raise RemoteError(
                f"{self.plan.slug}: all {limits.today} submissions of today (UTC) are used",
                hint=TOMORROW,
            )

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
        detail={"rerun": plan.rerun, "timeout_s": plan.timeout_s},
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
            f"another kagflow is submitting pack {plan.pack}",
            hint=f"{plan.command('history')} shows it",
        ) from None

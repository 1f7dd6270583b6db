"""The steps of a first contact that cost something: a GPU kernel, and a submission."""

from __future__ import annotations

import re
import time
from dataclasses import replace
from typing import Any

from kagflow.errors import NetworkError, RemoteError
from kagflow.ship import assumptions, doctor_reference
from kagflow.ship.doctor_live import Live
from kagflow.ship.doctor_probe import facts, follow, probe_push, pushed, reran
from kagflow.ship.records import now
from kagflow.ship.remote_types import KernelStatus, Pushed
from kagflow.ship.waits import poll

SCORING_S = 43200.0


def gpu_kernel(live: Live) -> str:
    """Run a GPU kernel past its time limit: what came, when it ended, what it cost and when."""
    remote, pace, shape = live.remote, live.pace, live.machine_shape
    before = _used_before(live, 4)
    push = probe_push(
        live, 4, "gpu",
        {"seconds": pace.asleep_s, "reference": doctor_reference.script(need_gpu=True),
         "reference_s": doctor_reference.LIMIT_S},
        shape=shape, timeout_s=pace.timeout_s,
    )  # fmt: skip
    try:
        made = pushed(live, 4, push)
    except RemoteError as error:
        raise _refused(live, error) from None
    live.tell(
        "phone_verified", value=True, found="a GPU was given", believed=True, key=remote.account()
    )
    _tell_status_version(live, made)
    status, log = follow(live, 4, push)
    ended = live.notes.once(4, "at", time.time)
    _tell_machine(live, facts(log))
    doctor_reference.keep(live, facts(log), made)
    ran = max((line.seconds for line in log), default=0.0)
    _tell_timeout(live, status, facts(log), ran)
    _tell_quota_lag(live, before=before, ran=ran, ended=ended)
    return "; ".join(answer.found for answer in live.found)


def _refused(live: Live, error: RemoteError) -> RemoteError:
    phone = re.search(r"phone|verif", error.message, re.IGNORECASE) is not None
    if phone:
        live.tell(
            "phone_verified",
            value=False,
            found=error.message,
            believed=False,
            key=live.remote.account(),
        )
    hint = "verify your phone on https://www.kaggle.com/settings, then run this step again"
    return RemoteError(error.message, hint=hint if phone else f"is the phone verified? {hint}")


def _tell_status_version(live: Live, made: Pushed) -> None:
    older = live.notes.of(3)
    if not older.get("ended") or older.get("ref") != made.ref:
        return
    seen = live.remote.kernel_status(made.ref, int(older["version"]))
    newest = live.remote.kernel_status(made.ref, made.version)
    if newest.complete or newest.failed:
        return
    text = f"version {older['version']} is {seen.name} while version {made.version} runs"
    live.tell("status_version_honoured", value=seen.complete, found=text, believed=seen.complete)


def _tell_machine(live: Live, told: dict[str, Any]) -> None:
    gpus, shape = told.get("gpus") or [], live.machine_shape
    if not gpus and told.get("rehearsal"):
        live.tell(
            "machine", value=None, found="the embedded Kaggle has no GPU to show", believed=None
        )
        return
    got = f"{gpus[0]} x{len(gpus)}" if gpus else "none"
    # NvidiaTeslaT4 is told by its driver as "Tesla T4".
    fits = bool(gpus) and _letters(gpus[0]) in _letters(shape)
    live.tell("machine", value=got, found=f"asked for {shape}, got {got}", believed=fits, key=shape)


def _letters(name: str) -> str:
    return re.sub(r"[^a-z0-9]|nvidia", "", name.lower())


def _tell_timeout(live: Live, status: KernelStatus, told: dict[str, Any], ran: float) -> None:
    honoured = status.failed and "end" not in told
    text = f"a limit of {live.pace.timeout_s} s ended the run after {ran:.0f} s: {status.name}"
    if not honoured:
        text = f"a limit of {live.pace.timeout_s} s did not end a run of {ran:.0f} s"
    live.tell("timeout_honoured", value=honoured, found=text, believed=honoured)
    if honoured:
        same = status.name == "CANCEL_ACKNOWLEDGED"
        live.tell("timeout_status", value=status.name, found=f"it is {status.name}", believed=same)


def _tell_quota_lag(live: Live, *, before: float | None, ran: float, ended: float) -> None:
    if before is None:
        return
    if _wait_for_cost(live, before + ran / 2, live.pace.quota_s):
        lag = max(0.0, time.time() - ended)
        live.tell(
            "quota_lag_s", value=lag, found=f"its cost showed after {lag:.0f} s", believed=lag < 60
        )
        return
    text = f"its cost did not show within {live.pace.quota_s:.0f} s"
    careful = max(assumptions.table()["quota_lag_s"].default, 2 * live.pace.quota_s)
    live.tell("quota_lag_s", value=careful, found=text, believed=False)


def _wait_for_cost(live: Live, used: float, limit_s: float) -> bool:
    """Tell whether the week's GPU seconds reach `used` in time."""
    live.progress.start("wait for the quota to show it")
    try:
        poll(live.remote, lambda: _used(live) or 0.0, lambda now: now >= used, limit_s=limit_s,
             what="the quota")  # fmt: skip
    except NetworkError:
        return False
    finally:
        live.progress.finish()
    return True


def _used_before(live: Live, step: int) -> float | None:
    """Return the week's GPU seconds before the step's push; noted with it."""
    if "version" not in live.notes.of(step):
        live.notes.put(step, used=_used(live))
    used = live.notes.of(step)["used"]
    return None if used is None else float(used)


def _used(live: Live) -> float | None:
    gpu = live.remote.quota().gpu
    return gpu.used if gpu else None


def submission(live: Live) -> str:
    """Submit an all-empty file by a kernel that waits in a rerun: is there one, is it billed?"""
    remote, task, pace = live.remote, live.task, live.pace
    if task is None:
        raise RemoteError(
            "no competition to submit to", hint="kagflow doctor COMPETITION --live --step 5"
        )
    if not remote.competition(task.slug).entered:
        raise RemoteError(f"{task.slug}: the rules are not accepted", hint="accept them first")
    before = _used_before(live, 5)
    values = {"seconds": pace.rerun_s, "sample": task.sample_submission, "value": task.value_column}
    timeout_s = int(60 + 3 * pace.rerun_s)
    push = probe_push(live, 5, "wait", values, shape=live.machine_shape, timeout_s=timeout_s)
    push = replace(push, competition=task.slug)
    status, log = follow(live, 5, push)
    if not status.complete:
        raise RemoteError(f"the probe ended as {status.name}: {status.message or 'no reason'}")
    if before is not None:
        saved = max((line.seconds for line in log), default=0.0)
        _wait_for_cost(live, before + saved / 2, _lag(live))
        live.notes.once(5, "used_by_save", lambda: _used(live))
    waited, error = _submitted(live, task.slug)
    again = waited >= pace.rerun_s
    reran(live, 5, push, int(live.notes.of(5)["submission"]), waited, ran=again)
    kind = "hidden" if again else "none"
    text = f"scored after {waited:.0f} s: {'a rerun waited' if again else 'no rerun'}{error}"
    live.tell("rerun", value=kind, found=text, believed=True, key=task.slug)
    if again and before is not None:
        billed = _wait_for_cost(
            live, live.notes.of(5)["used_by_save"] + pace.rerun_s / 2, _lag(live)
        )
        text = f"the rerun {'was' if billed else 'was not'} billed"
        live.tell("rerun_billed", value=billed, found=text, believed=not billed)
    return "; ".join(answer.found for answer in live.found)


def _submitted(live: Live, slug: str) -> tuple[float, str]:
    """Return how long the submission took and what went wrong with it; noted, submitted once."""
    remote, notes = live.remote, live.notes
    message = f"kagflow probe {notes.of(5)['nonce']}"
    at = notes.once(5, "submitted_at", time.time)
    notes.once(5, "sent", now)

    def send() -> int:
        known = [one.ref for one in remote.submissions(slug) if one.description == message]
        kernel, version = str(notes.of(5)["ref"]), int(notes.of(5)["version"])
        return max(known) if known else remote.submit(
            slug, kernel, version=version, file="submission.csv", message=message
        )  # fmt: skip

    ref = notes.once(5, "submission", send)
    live.progress.start(f"wait for submission {ref}")
    try:
        item = poll(remote, lambda: remote.submission(ref),
                    lambda item: item.status in {"COMPLETE", "ERROR"},
                    limit_s=SCORING_S, what=f"submission {ref}")  # fmt: skip
    finally:
        live.progress.finish()
    seconds = notes.once(5, "pending", lambda: max(0.0, time.time() - at))
    return float(seconds), f" ({item.error})" if item.error else ""


def _lag(live: Live) -> float:
    known = assumptions.read(live.remote.state).get("quota_lag_s")
    return min(live.pace.quota_s, 2 * float(known.value) + 30) if known else live.pace.quota_s

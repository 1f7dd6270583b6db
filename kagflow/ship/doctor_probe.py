"""The kernels that a first contact sends: rendered, pushed once, followed, and read."""

from __future__ import annotations

import json
from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Any

from kagflow.ship import hours
from kagflow.ship.doctor_live import Live
from kagflow.ship.records import HoursRow, now
from kagflow.ship.remote_types import KernelPush, KernelStatus, LogLine, Pushed
from kagflow.ship.render import render
from kagflow.ship.settle import CANCELLED
from kagflow.ship.waits import follow_kernel

NAME = "kagflow-probe"
TITLE = "kagflow probe"
LINE = "kagflow-probe "
QUEUE_S = 7200.0


def probe_push(  # noqa: PLR0913 - one keyword for each thing that a probe differs in
    live: Live,
    step: int,
    template: str,
    values: dict[str, Any],
    *,
    datasets: tuple[str, ...] = (),
    shape: str = "None",
    timeout_s: int = 600,
) -> KernelPush:
    """Render a template of templates/probe as this try's push."""
    nonce = live.notes.of(step)["nonce"]
    return KernelPush(
        ref=f"{live.remote.account()}/{NAME}",
        title=TITLE,
        text=render(f"probe/{template}.py.j2", {"nonce": nonce, **values}),
        datasets=datasets,
        competition="",
        machine_shape=shape,
        timeout_s=timeout_s,
    )


def pushed(live: Live, step: int, push: KernelPush) -> Pushed:
    """Push once: a kill between the push and its note finds the version again by its source."""
    known, since = live.notes.of(step), live.notes.once(step, "since", now)
    if "version" not in known:
        made = live.remote.find_kernel(push) or live.remote.push_kernel(push)
        known = live.notes.put(step, ref=made.ref, version=made.version, url=made.url)
    at = Pushed(known["ref"], known["version"], known["url"])
    _stretch(live, "kernel", f"{at.ref}/v{at.version}", since, push)
    return at


def follow(live: Live, step: int, push: KernelPush) -> tuple[KernelStatus, tuple[LogLine, ...]]:
    """Wait for a step's kernel, pushing it where need be; return how it ended and its log."""
    at = pushed(live, step, push)
    limit_s = push.timeout_s + QUEUE_S
    status = follow_kernel(live.remote, at.ref, at.version, limit_s=limit_s)
    log = live.remote.kernel_log(at.ref, at.version)
    stretch = _stretch(
        live, "kernel", f"{at.ref}/v{at.version}", live.notes.of(step)["since"], push
    )
    # Its log ends with its last line, before a time limit does.
    passed = (datetime.now(UTC) - hours.moment(stretch.started)).total_seconds()
    limit = min(passed, push.timeout_s) if status.name == CANCELLED else 0.0
    ran = max((line.seconds for line in log), default=0.0)
    hours.end(live.records, stretch, seconds=max(ran, limit), noticed=True)
    return status, log


def reran(live: Live, step: int, push: KernelPush, ref: int, seconds: float, *, ran: bool) -> None:
    """Note a scoring in the ledger; what did not run again took no machine."""
    since = live.notes.of(step)["sent"]
    stretch = _stretch(live, "submission", str(ref), since, push, idle=not ran)
    hours.end(live.records, stretch, seconds=seconds, source="estimated", noticed=True)


def _stretch(
    live: Live, kind: str, subject: str, since: str, push: KernelPush, *, idle: bool = False
) -> HoursRow:
    return hours.begin(
        live.records,
        HoursRow(
            profile=live.remote.profile,
            account=live.remote.account(),
            kind=kind,
            competition=push.competition,
            subject=subject,
            place="kaggle",
            accelerator="" if idle else push.machine_shape,
            started=since,
            forecast_seconds=None,
        ),
    )


def facts(log: Iterable[LogLine]) -> dict[str, Any]:
    """Return what a probe told in its log; parts of one fact are put together."""
    told: dict[str, Any] = {}
    for line in "".join(one.text for one in log).splitlines():
        if not line.startswith(LINE):
            continue
        try:
            key, value = json.loads(line.removeprefix(LINE))
        except ValueError:
            continue
        both = isinstance(value, dict) and isinstance(told.get(key), dict)
        told[key] = {**told[key], **value} if both else value
    return told

"""The kernels that a first contact sends: rendered, pushed once, followed, and read."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

from kagflow.ship.doctor_live import Live
from kagflow.ship.remote_types import KernelPush, KernelStatus, LogLine, Pushed
from kagflow.ship.render import render
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
    known = live.notes.of(step)
    if "version" not in known:
        made = live.remote.find_kernel(push) or live.remote.push_kernel(push)
        known = live.notes.put(step, ref=made.ref, version=made.version, url=made.url)
    return Pushed(known["ref"], known["version"], known["url"])


def follow(live: Live, step: int, push: KernelPush) -> tuple[KernelStatus, tuple[LogLine, ...]]:
    """Wait for a step's kernel, pushing it where need be; return how it ended and its log."""
    at = pushed(live, step, push)
    limit_s = push.timeout_s + QUEUE_S
    status = follow_kernel(live.remote, at.ref, at.version, limit_s=limit_s)
    return status, live.remote.kernel_log(at.ref, at.version)


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

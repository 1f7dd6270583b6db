"""Compare an accelerator with this machine by one small network, before any pack ran there."""

from __future__ import annotations

import os
import sys
from typing import Any

from kagflow import process
from kagflow.ship import costs
from kagflow.ship.doctor_live import Live
from kagflow.ship.doctor_probe import facts
from kagflow.ship.records import now
from kagflow.ship.remote_types import LogLine, Pushed
from kagflow.ship.render import render
from kagflow.task.costs import Costs, Pair, Turn

NAME = "reference"
# A probe may wait so long for it: importing torch is most of that.
LIMIT_S = 60


def script(*, need_gpu: bool) -> str:
    """Return the program that measures; it prints what it found as one fact."""
    return render("probe/reference.py.j2", {"need_gpu": need_gpu})


def measure() -> dict[str, Any] | None:
    """Run it on this machine, in a process of its own; None where torch is not to be had."""
    threads = os.environ.get("OMP_NUM_THREADS") or str(len(os.sched_getaffinity(0)))
    done = process.run(
        [sys.executable, "-c", script(need_gpu=False)],
        env={**os.environ, "OMP_NUM_THREADS": threads},
        check=False,
        timeout=10 * LIMIT_S,
    )
    lines = [LogLine(0.0, "stdout", f"{line}\n") for line in done.stdout.splitlines()]
    return facts(lines).get(NAME)


def keep(live: Live, told: dict[str, Any], made: Pushed) -> None:
    """Keep what a probe measured of an accelerator beside the same of this machine."""
    there = told.get(NAME)
    if not there or live.machine_shape in {"", "None"}:
        return
    here = measure()
    if here is None:
        return
    subject = f"{made.ref}/v{made.version}"
    pair = Pair(live.machine_shape, now(), "probe", subject, as_costs(there), as_costs(here))
    costs.note(live.remote.state, pair)


def as_costs(found: dict[str, Any]) -> Costs:
    """Return a measurement in the form of a kernel's: one member, one image."""
    forward, host = float(found["forward"]), float(found["host"])
    each = max(forward / int(found["lanes"]), host)
    return Costs(
        machine=str(found["machine"]),
        lanes=int(found["lanes"]),
        members=(Turn(NAME, NAME, forward),),
        gated=0,
        passed=0,
        decode=host,
        finish=0.0,
        rest=0.0,
        parity=0.0,
        parity_images=0,
        images=1,
        total=float(found["loaded"]) + each,
    )

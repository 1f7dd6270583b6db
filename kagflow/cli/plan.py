"""kagflow train --plan: what would run, how long it would take and what it needs; runs nothing."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from kagflow.cli import devices, jobs, words
from kagflow.cli.competitions import Known
from kagflow.cli.jobs import Job
from kagflow.cli.session import Session
from kagflow.cli.training import How, wanted

if TYPE_CHECKING:
    import torch

    from kagflow.learn.forecast import Forecast
    from kagflow.learn.job import Job as Wanted
    from kagflow.learn.speed import Speed

UNKNOWN = "unknown"


def show(
    session: Session, known: Known, planned: Sequence[Job], how: How, *, again: str
) -> dict[str, Any]:
    """Print the jobs with their forecasts, and what they come to; `again` would train them."""
    from kagflow.learn.forecast import Stock, forecast
    from kagflow.learn.prepare import find_device

    there = jobs.fetched(session, known)
    stock = Stock.read(session.workspace.data(known.name), known.config.task()) if there else None
    slots = devices.slots(how.device, gpus=how.gpus, jobs=len(planned))
    device = slots[0].devices[0]
    measure = _Measure(session, find_device(device))
    found = []
    for job in planned:
        asked = wanted(session, known, job, how, device)
        found.append(forecast(asked, stock, measure))
    _table(session, planned, found)
    value = _value(session, planned, found, how, at_once=len(slots))
    if any(one.source.startswith("measured") for one in found) and busy():
        session.out.warn("this machine is busy: alone on it, training takes less than measured now")
    for line in _lines(value):
        session.out.say(line)
    next_command = again if there else session.command(f"fetch {known.name}")
    value["next"] = next_command
    session.out.result(value, f"next: {next_command}")
    return value


class _Measure:
    """Know the speed of each recipe: from an earlier run where there is one, else tried out."""

    def __init__(self, session: Session, device: torch.device) -> None:
        self._session, self._device = session, device
        self._known: dict[str, Speed] = {}

    def __call__(self, job: Wanted) -> Speed:
        from kagflow.learn.prepare import machine_name
        from kagflow.learn.speed import earlier_speed, speed_key
        from kagflow.learn.tryout import try_out

        key = speed_key(job.recipe, job.processes)
        if key not in self._known:
            runs, on = job.run_dir.parents[1], machine_name(self._device)
            speed = earlier_speed(runs, job.recipe, on=on, processes=job.processes)
            if speed is None:
                progress = self._session.out.progress()
                progress.start(f"try {job.label} on a few images")
                speed = try_out(job, self._device)
                progress.finish()
            self._known[key] = speed
        return self._known[key]


def busy() -> bool:
    """Tell whether more wants to run here than there are processors."""
    return os.getloadavg()[0] > 1 + (os.cpu_count() or 1)


def _table(session: Session, planned: Sequence[Job], found: Sequence[Forecast]) -> None:
    rows = [
        (
            job.label,
            one.standing + (f" from step {one.step}" if one.step else ""),
            one.steps if one.steps is not None else "-",
            *(_or(seconds, words.span, one) for seconds in (one.train, one.predict)),
            *(_or(size, _bytes, one) for size in (one.memory, one.disk)),
            ", ".join(f"{key} {value}" for key, value in one.changes.items()),
        )
        for job, one in zip(planned, found, strict=True)
    ]
    columns = ("run", "", "steps", "training", "predicting", "memory", "disk", "so that it fits")
    kept = len(columns) if any(one.changes for one in found) else -1
    session.out.table("plan", columns[:kept], [row[:kept] for row in rows])
    for job, one in zip(planned, found, strict=True):
        if one.why:
            session.out.say(f"{job.label} is refused: {one.why}")
    for source in dict.fromkeys(one.source for one in found if one.source):
        session.out.say(f"from: {source}")


def _value(
    session: Session, planned: Sequence[Job], found: Sequence[Forecast], how: How, *, at_once: int
) -> dict[str, Any]:
    from kagflow.learn.forecast import wall

    sizes = {job.recipe.size: one for job, one in zip(planned, found, strict=True)}
    decode = [one.decode for one in sizes.values()]
    seconds = [one.seconds for one in found]
    whole = None
    if None not in (*seconds, *decode):
        whole = wall([one or 0.0 for one in seconds], at_once) + sum(one or 0.0 for one in decode)
    home = session.workspace.home
    return {
        "runs": [
            {"run": job.run, "fold": job.fold, **asdict(one), "seconds": one.seconds}
            for job, one in zip(planned, found, strict=True)
        ],
        "at_once": at_once,
        "seconds": whole,
        "disk": sum(one.disk or 0 for one in found),
        "decoded": sum(one.decoded or 0 for one in sizes.values()),
        "free": shutil.disk_usage(home).free,
        "memory": how.memory,
        "unknown": sorted({name for one in found for name in one.unknown}),
    }


def _lines(value: dict[str, Any]) -> list[str]:
    lines = []
    if value["seconds"] is not None:
        beside = f", {value['at_once']} at a time" if value["at_once"] > 1 else ""
        lines.append(f"in all about {words.span(value['seconds'])}{beside}")
    need, free = value["disk"] + value["decoded"], value["free"]
    if need:
        lines.append(f"disk: {_bytes(need)} of {_bytes(free)} that are free")
    if need > free:
        lines.append("warning: the disk will be full before the end")
    cap = value["memory"]
    lines += [
        f"{one['run']} fold {one['fold']}: more than memory={_bytes(cap)}; what fits is found "
        "before its first epoch"
        for one in value["runs"]
        if cap is not None and (one["memory"] or 0) > cap
    ]
    if value["unknown"]:
        lines.append(f"unknown: {', '.join(value['unknown'])}")
    return lines


def _or(value: float | None, write: Callable[[float], str], one: Forecast) -> str:
    if one.standing in ("finished", "refused"):
        return "-"
    return UNKNOWN if value is None else write(value)


def _bytes(size: float) -> str:
    return f"{size / 1e6:.0f} MB" if size < 1e9 else f"{size / 1e9:.1f} GB"

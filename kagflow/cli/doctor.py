"""kagflow doctor: what this machine and Kaggle are like, and how to mend what is wrong."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from kagflow import audit, machine
from kagflow.cli import competitions, remotes
from kagflow.cli.session import Session, guarded, open_session, sole
from kagflow.errors import DataError, KagflowError, RefusedError, UsageError
from kagflow.machine import Check
from kagflow.workspace import user_state

if TYPE_CHECKING:
    from kagflow.ship.doctor_live import Climbed, Step

MARKS = {"ok": "ok", "warn": "warn", "fail": "FAIL", "unknown": "?"}
WIDTH = 14
SHOWN_FAULTS = 5
# Which failure names the exit code where several do: what nothing works without comes first.
SEVERITY = (7, 3, 4, 5, 6, 8, 2, 1)
DEFAULT_SHAPE = "NvidiaTeslaT4"


@guarded
def command(
    context: typer.Context,
    words: Annotated[list[str] | None, typer.Argument(metavar="[COMPETITION]")] = None,
    strict: Annotated[
        bool, typer.Option("--strict", help="Also import torch, and verify every manifest here.")
    ] = False,
    live: Annotated[
        bool, typer.Option("--live", help="Ask Kaggle itself, step by step, what it does.")
    ] = False,
    step: Annotated[
        int | None, typer.Option("--step", min=1, max=5, help="With --live: this step only, again.")
    ] = None,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask before each step.")] = False,
) -> None:
    """Check machine, sandbox, credential, rules, quota and clock; say how to mend each."""
    session = open_session(context)
    word = sole(words or [], "competition")
    if live:
        climb(session, word, only=step, yes=yes)
        return
    if step is not None:
        raise UsageError("--step is a step of --live", hint="kagflow doctor --live --step N")
    checks = list(run_checks(session, word, strict=strict))
    worst = _worst(checks)
    text = "\n".join(line for check in checks for line in _lines(check))
    session.out.result({"checks": [asdict(one) for one in checks], "exit_code": worst}, text)
    if worst:
        raise typer.Exit(worst)


def run_checks(session: Session, word: str | None, *, strict: bool) -> Iterator[Check]:
    """Yield one finding a line; those that wait for something else run side by side."""
    home = session.workspace.root
    with ThreadPoolExecutor() as pool:
        sandbox = pool.submit(_sandbox)
        gpu = pool.submit(machine.judged, "gpu", machine.gpu_check)
        kaggle = pool.submit(lambda: list(_kaggle(session, word)))
        yield machine.python_check()
        yield machine.torch_check()
        yield gpu.result()
        yield sandbox.result()
        yield machine.disk_check(home)
        yield machine.file_system_check(session.workspace.home)
        yield from kaggle.result()
    if strict:
        yield machine.judged("torch computes", machine.torch_imports)
        yield _manifests(session)


def _sandbox() -> Check:
    from kagflow.rehearse import sandbox

    def look() -> Check:
        layer = sandbox.strongest_layer()
        if layer == "bwrap":
            return Check("sandbox", "ok", layer)
        mend = "apt install bubblewrap, for a sandbox that also drops privileges"
        return Check("sandbox", "ok", f"{layer}; {mend}")

    return machine.judged("sandbox", look)


def _manifests(session: Session) -> Check:
    found = audit.audit(session.workspace.home, progress=session.out.progress())
    text = f"{found.manifests} manifests, {found.files} files"
    if not found.faults:
        return Check("manifests", "ok", f"{text} are as they were written")
    shown = "; ".join(f"{one.path}: {one.what}" for one in found.faults[:SHOWN_FAULTS])
    mend = "fetch --force for data, pack again for packs; a damaged checkpoint is passed over"
    return Check(
        "manifests", "fail", f"{len(found.faults)} faults: {shown}", mend, DataError.exit_code
    )


def _kaggle(session: Session, word: str | None) -> Iterator[Check]:
    from kagflow.ship import doctor

    yield doctor.client_check()
    if not session.local:
        credential = machine.judged("credential", doctor.credential_check)
        yield credential
        if credential.state != "ok":
            text = "account, rules and quota not looked at: they need a credential"
            yield Check("kaggle", "unknown", text)
            return
    elif not remotes.local_runs(session):
        yield Check("kaggle", "ok", "the embedded one, not running: it starts when it is needed")
        return
    remote = remotes.open_remote(session)
    greeting = doctor.greet(remote.transport)
    if greeting is None:
        yield doctor.unreached(remote.source)
    else:
        known = _known(session, word)
        yield doctor.clock_check(greeting)
        account = machine.judged("account", lambda: doctor.account_check(remote))
        yield account
        if account.state == "ok":
            if known is not None:
                slug = known.config.slug
                yield machine.judged("rules", lambda: doctor.rules_check(remote, slug))
            yield machine.judged("quota", lambda: doctor.quota_check(remote))
    yield machine.judged("assumptions", lambda: doctor.answers_check(remote.state))


def _worst(checks: list[Check]) -> int:
    failed = [one.code for one in checks if one.state == "fail"]
    return min(failed, key=SEVERITY.index, default=0)


def _lines(check: Check) -> list[str]:
    line = f"{MARKS[check.state]:<5} {check.name:<{WIDTH}} {check.found}"
    return [line, f"{'':<6}{'':<{WIDTH}} -> {check.mend}"] if check.mend else [line]


def climb(session: Session, word: str | None, *, only: int | None, yes: bool) -> None:
    """Climb the steps of a first contact and print what was found."""
    from kagflow.ship import assumptions, doctor_live
    from kagflow.ship.doctor_steps import STEPS
    from kagflow.ship.records import Records

    remote = remotes.open_remote(session)
    known = _known(session, word)
    live = doctor_live.Live(
        remote=remote,
        notes=doctor_live.Notes(remote.state, remote.account()),
        records=Records(user_state()),
        task=known.config.task() if known else None,
        machine_shape=known.config.accelerator if known else DEFAULT_SHAPE,
        progress=session.out.progress(),
    )
    ended = []
    for one in doctor_live.climb(live, STEPS, only=only, agreed=_asker(session, only, yes=yes)):
        ended.append(one)
        for line in _told(one):
            session.out.say(line)
    rows = _table(remote.state)
    session.out.table("what is known of Kaggle", ("assumption", "state", "what holds"), rows)
    worst = max((one.code for one in ended), default=0)
    session.out.result(
        {
            "steps": [_as_dict(one) for one in ended],
            "answers": {name: asdict(one) for name, one in assumptions.read(remote.state).items()},
            "exit_code": worst,
        }
    )
    if worst:
        raise typer.Exit(worst)


def _known(session: Session, word: str | None) -> competitions.Known | None:
    """Return the named or active competition; None where none is, which is no fault here."""
    if word is None and session.local and session.workspace.active() is None:
        # The embedded Kaggle has only what was fetched from it or added to it.
        return None
    try:
        return competitions.find(session.workspace, word)
    except KagflowError:
        if word is not None:
            raise
        return None


def _asker(session: Session, only: int | None, *, yes: bool) -> Callable[[Step], bool | None]:
    """Return what shows a step's price and asks for a word: --yes, or an answer typed here.

    Raises RefusedError where nobody can be asked.
    """

    def agreed(step: Step) -> bool | None:
        if yes and step.named and only != step.number:
            return None
        session.out.say(f"step {step.number}: {step.title}\n  price: {step.price}")
        if yes:
            return True
        if not sys.stdin.isatty():
            raise RefusedError(
                f"step {step.number} wants a word, and nobody can be asked",
                hint=session.command("doctor --live --yes"),
            )
        return typer.confirm(f"step {step.number} costs: {step.price}. Take it?", err=True)

    return agreed


def _told(one: Climbed) -> list[str]:
    lines = [f"  {one.ending}: {one.text}"]
    lines += [f"    {a.state}: {a.name}: {a.found}" for a in one.answers]
    return lines + ([f"    -> {one.hint}"] if one.hint else [])


def _as_dict(one: Climbed) -> dict[str, object]:
    return {
        "step": one.step.number,
        "ending": one.ending,
        "text": one.text,
        "hint": one.hint,
        "answers": [asdict(answer) for answer in one.answers],
    }


def _table(state: Path) -> list[tuple[str, str, str]]:
    """Return every assumption with its answers, or with what is done until there is one."""
    from kagflow.ship import assumptions

    answers = assumptions.read(state)
    rows = []
    for name, one in assumptions.table().items():
        found = [answer for answer in answers.values() if answer.name == name]
        rows += [(name, f"{a.state} on {a.date}", a.found) for a in found]
        if not found:
            rows.append((name, "unknown", one.until))
    return rows

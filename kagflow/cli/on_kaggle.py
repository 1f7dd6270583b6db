"""Train on Kaggle's GPUs: in kernels that go on from each other, without internet."""

from __future__ import annotations

import sys
from dataclasses import replace
from typing import TYPE_CHECKING

import typer

from kagflow.cli import away, handed, jobs, remotes, words
from kagflow.cli.executors import Order
from kagflow.cli.handed import ORDER
from kagflow.cli.jobs import Job
from kagflow.cli.sweep import Failure, Outcome
from kagflow.cli.watch import Watch
from kagflow.errors import RefusedError, RemoteError, UsageError
from kagflow.workspace import user_state

if TYPE_CHECKING:
    from kagflow.ship.budget import Judgement
    from kagflow.ship.parts import Part
    from kagflow.ship.records import Records
    from kagflow.ship.remote import Remote
    from kagflow.ship.train_order import TrainOrder
    from kagflow.ship.train_session import Ended

HOURS = 12.0
# What a session has for an accelerator: its name as torch tells it, and how many.
GPUS = {"NvidiaTeslaT4": ("Tesla T4", 2)}


class OnKaggle:
    """Train in kernels, each with a deadline of its own, until done or the hours are spent."""

    def run(self, order: Order, *, attach: bool) -> Outcome:
        """Hand over unless handed over before, follow, bring back verified.

        Raises what `Chain.run` raises, RefusedError where another kagflow follows the same
        training, UsageError where there is nothing to attach to.
        """
        from kagflow.ship.claim import claim
        from kagflow.ship.records import Records

        away.check(order.how)
        if order.hours is not None and order.hours <= 0:
            raise UsageError(f"--hours {order.hours:g} is no time", hint="--hours 12")
        remote, records = remotes.open_remote(order.session), Records(user_state())
        if attach and not order.planned:
            order, key = _newest(order, records)
        elif attach or away.unfinished(order):
            key = _key(order, remote)
        else:
            return away.outcome(order)
        wanted = _wanted(order, key)
        work = order.session.workspace.away(order.known.name)
        with claim(work / wanted.key, "is following"):
            return _follow(order, wanted, remote, records, attach=attach)


def _follow(
    order: Order, wanted: TrainOrder, remote: Remote, records: Records, *, attach: bool
) -> Outcome:
    from kagflow.ship.train_chain import Chain

    session, known = order.session, order.known
    parts = _handed_over(order, wanted, records, attach=attach)
    try:
        with Watch(session.out, known.config.classes) as watch:
            chain = Chain(
                wanted,
                parts,
                remote,
                records,
                runs=session.workspace.runs(known.name),
                work=session.workspace.away(known.name),
                progress=watch,
            )
            ended = chain.run(
                attach=attach, ask=lambda judged, seconds: _ask(order, wanted, judged, seconds)
            )
    except KeyboardInterrupt:
        session.out.say(
            "the kernel goes on, and leaves what it trained; "
            f"{session.command('train --attach')} follows it, its page stops it"
        )
        return away.outcome(order, interrupted=True)
    return _outcome(order, ended)


def _key(order: Order, remote: Remote) -> str:
    from kagflow.learn import provenance
    from kagflow.learn.cache import data_hash
    from kagflow.ship.train_order import key_of

    recipes = [job.recipe.model_dump(mode="json") for job in order.planned]
    made_from = [
        [_inside(job), recipe, provenance.digest(provenance.code_files(recipe))]
        for job, recipe in zip(order.planned, recipes, strict=True)
    ]
    data = data_hash(order.session.workspace.data(order.known.name))
    return key_of(remote, order.known.name, [*made_from, data])


def _wanted(order: Order, key: str) -> TrainOrder:
    from kagflow.ship.kernel import task_facts
    from kagflow.ship.train_order import TrainJob, TrainOrder

    workspace, known = order.session.workspace, order.known
    seconds = _forecasts(order)
    return TrainOrder(
        key=key,
        competition=known.name,
        slug=known.config.slug,
        jobs=tuple(
            TrainJob(
                _inside(job), tuple(away.words(order, job)), order.how.gpus, seconds[job.folder]
            )
            for job in order.planned
        ),
        runs=workspace.runs(known.name).relative_to(workspace.root).as_posix(),
        accelerator=known.config.accelerator,
        task=task_facts(known.config.task().to_dict()),
        hours=HOURS if order.hours is None else order.hours,
        over_quota=order.over_quota,
    )


def _forecasts(order: Order) -> dict[object, float | None]:
    """Return each job's share of a session's seconds, None where no run was timed there."""
    from kagflow.cli.training import wanted
    from kagflow.learn.forecast import Stock, forecast
    from kagflow.learn.speed import earlier_speed

    session, known, how = order.session, order.known, order.how
    machine, count = GPUS.get(known.config.accelerator, ("", 1))
    beside = min(len(order.planned), max(1, count // how.gpus))
    runs, found = session.workspace.runs(known.name), dict[object, float | None]()
    stock = Stock.read(session.workspace.data(known.name), known.config.task())
    for job in order.planned:
        asked = wanted(session, known, job, how, "auto")
        speed = earlier_speed(runs, asked.recipe, on=machine, processes=how.gpus)
        seconds = None if speed is None else forecast(asked, stock, lambda _, it=speed: it).seconds  # type: ignore[misc]
        found[job.folder] = None if seconds is None else seconds / beside
    return found


def _handed_over(
    order: Order, wanted: TrainOrder, records: Records, *, attach: bool
) -> tuple[Part, Part]:
    """Return code and load of an order, collected once."""
    from kagflow.ship import target, train_order
    from kagflow.ship.load import LOAD
    from kagflow.ship.records import StepRow
    from kagflow.ship.steps import Steps

    session, known = order.session, order.known
    root = session.workspace.away(known.name)
    if attach and not records.select(StepRow, job=wanted.job, name=ORDER):
        raise _nothing(order)

    def collect() -> dict[str, str]:
        code = train_order.build_code(
            root / train_order.CODE,
            fingerprint=target.chosen(session.workspace.targets, known.config.accelerator),
            requires=away.requires(order),
            allow_replace=known.config.allow_replace,
            progress=session.out.progress(),
        )
        return {train_order.CODE: code.hash, LOAD: away.build_load(order, root / LOAD).hash}

    effect = handed.effect(session, known, order.planned)
    named = Steps(records, wanted.job, lambda _: None).once(ORDER, effect, collect)
    return train_order.read_parts(root, {key: str(value) for key, value in named.items()})


def _newest(order: Order, records: Records) -> tuple[Order, str]:
    """Return what was handed over last from this workspace, with its jobs, and its key."""
    from kagflow.ship.records import StepRow
    from kagflow.ship.train_order import PREFIX

    rows = records.select(StepRow, name=ORDER)
    found = [
        row
        for row in rows
        if row.job.startswith(f"{PREFIX}:") and handed.mine(order.session, order.known, row)
    ]
    if not found:
        raise _nothing(order)
    newest = max(found, key=lambda row: (handed.pushed(records, row.job), row.intent_at))
    planned: list[Job] = []
    for one in newest.effect["words"]:
        planned += jobs.plan(order.session, order.known, words.split(one).overrides)
    return replace(order, planned=tuple(planned)), newest.job.removeprefix(f"{PREFIX}:")


def _nothing(order: Order) -> UsageError:
    return UsageError(
        "nothing of this was handed over to Kaggle",
        hint=order.session.command("train --on kaggle") + " hands it over",
    )


def _ask(order: Order, wanted: TrainOrder, judged: Judgement, seconds: float) -> None:
    """Show what is about to begin, and ask once.

    Raises RefusedError on a no, and where nobody can be asked.
    """
    out = order.session.out
    rows = [
        ("runs", ", ".join(one.run for one in wanted.jobs)),
        ("accelerator", f"{wanted.accelerator}, internet off, private"),
        ("a session ends", f"after {seconds / 3600:.2f} h; nothing can stop it from here"),
        ("all sessions together", f"{wanted.hours:g} h at most"),
        ("hours", judged.describe()),
    ]  # fmt: skip
    out.table(f"train {wanted.competition} on Kaggle", ("", ""), rows)
    if order.yes:
        return
    if not sys.stdin.isatty():
        raise RefusedError("this costs hours and nobody can be asked", hint="the same with --yes")
    if not typer.confirm("Hand it over?", err=True):
        raise RefusedError("not handed over")


def _outcome(order: Order, ended: Ended) -> Outcome:
    found = away.outcome(order)
    out = order.session.out
    if ended.sessions:
        count = len(ended.sessions)
        out.say(f"{count} session{'s' * (count > 1)} on Kaggle, {ended.spent_s / 3600:.2f} h")
    if ended.why:
        out.say(ended.why)
    for line in ended.tail if ended.failed else ():
        out.say(f"  | {line}")
    for job in [one for one in found.left if _inside(one) in ended.failed]:
        found.left.remove(job)
        text = "its training failed there, see its last lines above"
        hint = "mend it; the same command goes on from its last checkpoint"
        found.failed.append(Failure(job, text, hint, RemoteError.exit_code))
    return found


def _inside(job: Job) -> str:
    return f"{job.run}/{job.folder.name}"

"""Train in kernels that go on from each other: each step noted, found again after a kill.

A session goes: a version of each dataset, kernel push, wait for the run, bring back what it left.
The next one mounts that output and goes on, until all is trained or the hours are spent. What
happened on Kaggle but was not noted here is found by the session's token in a kernel's source.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from kagflow.errors import DataError, RemoteError
from kagflow.progress import QUIET, Progress
from kagflow.ship import budget, hours, settle, train_order, train_pull
from kagflow.ship.parts import Part
from kagflow.ship.plan_datasets import plan_part
from kagflow.ship.records import HoursRow, Records, StepRow, now
from kagflow.ship.remote import Remote
from kagflow.ship.steps import Steps
from kagflow.ship.train_kernel import session_push, token
from kagflow.ship.train_order import TURNS, TrainOrder
from kagflow.ship.train_session import Ended, Session, find_pushed, moved, said_of, tail_of
from kagflow.ship.waits import follow_kernel, push_when_free

QUEUE_S = 7200.0  # seconds a session may wait for a machine
READY_S = 3600.0
PAGE = "https://www.kaggle.com/code"


class Chain:
    """The sessions of one order."""

    def __init__(  # noqa: PLR0913 - what is trained, where it is noted, where it comes back
        self,
        order: TrainOrder,
        parts: tuple[Part, Part],
        remote: Remote,
        records: Records,
        *,
        runs: Path,
        work: Path,
        progress: Progress = QUIET,
    ) -> None:
        self.order, self.code, self.load = order, *parts
        self.remote, self.records, self.progress = remote, records, progress
        self.runs, self.work = runs, work
        self.steps = Steps(records, order.job, remote.transport.sleep)

    def run(self, *, attach: bool, ask: Callable[[budget.Judgement, float], None]) -> Ended:
        """Go on until all is trained, the hours are spent, or something fails.

        `ask` is told the judgement and the seconds of a session before the first one is pushed, and
        raises to keep it from that. `attach` pushes nothing. Raises RemoteError where Kaggle
        refuses or a kernel fails, with its log's end.
        """
        sessions: list[Session] = []
        while True:
            number = len(sessions) + 1
            pushed = self._noted(f"push {number}")
            if pushed is None and attach:
                pushed = self._found(number, sessions)
            if pushed is None:
                ended = self._over(sessions, attach=attach)
                if ended is not None:
                    return ended
                pushed = self._push(number, sessions, ask)
            session = self._follow(number, pushed)
            if session.lost and sessions and sessions[-1].lost and not self._told(number):
                raise DataError(
                    f"two sessions in a row are lost; session {number}: {session.lost}",
                    hint=f"look at {PAGE}/{session.ref}; the same command begins one more",
                )
            sessions.append(session)
            if session.failed and not self._told(number):
                said = self.remote.kernel_log(session.ref, session.version)
                return self._end(sessions, "", tuple(session.failed), tail_of(said))

    def _over(self, sessions: list[Session], *, attach: bool) -> Ended | None:
        """Say why no further session is to be pushed, None where one is."""
        if sessions and (sessions[-1].finished or not self._wanted(sessions).jobs):
            return self._end(sessions, "")
        left = self.order.limit_s - self._spent(sessions)
        if left < min(train_order.LEAST_SESSION_S, self.order.limit_s / 2):
            spent = f"{self._spent(sessions) / 3600:.2f} of {self.order.hours:g} hours are spent"
            return self._end(sessions, f"{spent}: more with --hours {2 * self.order.hours:g}")
        if attach:
            lost = f"session {len(sessions)} is lost; " if sessions and sessions[-1].lost else ""
            return self._end(sessions, f"{lost}the same command without --attach goes on")
        if len(sessions) > 1 and sessions[-1].good and not moved(sessions):
            raise RemoteError(
                f"session {sessions[-1].number} trained nothing that the one before had not: "
                "a step takes longer than a session lasts",
                hint="more --hours, or a recipe of smaller steps",
            )
        return None

    def _end(
        self,
        sessions: list[Session],
        why: str,
        failed: tuple[str, ...] = (),
        tail: tuple[str, ...] = (),
    ) -> Ended:
        return Ended(tuple(sessions), self._spent(sessions), why, failed, tail)

    def _wanted(self, sessions: list[Session]) -> TrainOrder:
        """Return the order less the runs that came back finished out of a lost session."""
        kept = {run for one in sessions for run in one.kept}
        return replace(
            self.order, jobs=tuple(one for one in self.order.jobs if one.run not in kept)
        )

    def _spent(self, sessions: list[Session]) -> float:
        return sum(one.seconds for one in sessions)

    def _push(
        self,
        number: int,
        sessions: list[Session],
        ask: Callable[[budget.Judgement, float], None],
    ) -> Mapping[str, Any]:
        order, spent = self._wanted(sessions), self._spent(sessions)
        account = self.remote.account()
        base, turn = self._turn(sessions)
        ref, mark = order.kernel(account, turn), self._mark(number)

        def send() -> dict[str, Any]:
            judgement = train_order.judge(order, self.remote, self.records, spent_s=spent)
            seconds = train_order.session_s(order, judgement, spent_s=spent)
            budget.require(judgement, over_quota=order.over_quota)
            if not sessions or sessions[-1].lost:
                ask(judgement, seconds)
            push = session_push(
                order,
                account,
                number,
                code=self.code,
                load=self.load,
                seconds=seconds,
                turn=turn,
                previous=token(order, base.number) if base else "",
                sources=(base.ref,) if base else (),
                datasets=tuple(self._dataset(number, part) for part in (self.code, self.load)),
            )
            made = push_when_free(self.remote, push, limit_s=QUEUE_S, progress=self.progress)
            return {"ref": made.ref, "version": made.version, "at": now(), "seconds": seconds}

        effect = {"ref": ref, "mark": mark}
        return self.steps.effect(
            f"push {number}", effect, lambda since: find_pushed(self.remote, ref, mark, since), send
        )

    def _found(self, number: int, sessions: list[Session]) -> Mapping[str, Any] | None:
        """Return a session that was pushed by a command which could not note it, None for none."""
        rows = self.records.select(StepRow, job=self.order.job, name=f"push {number}")
        if not rows:
            return None
        ref = self.order.kernel(self.remote.account(), self._turn(sessions)[1])
        there = find_pushed(self.remote, ref, self._mark(number), rows[0].intent_at)
        return None if there is None else self.records.done(rows[0], there).result

    def _turn(self, sessions: list[Session]) -> tuple[Session | None, str]:
        """Return the session that the next one goes on from, and which kernel's turn it is."""
        base = next((one for one in reversed(sessions) if one.good), None)
        account = self.remote.account()
        free = (one for one in TURNS if base is None or base.ref != self.order.kernel(account, one))
        return base, next(free)

    def _mark(self, number: int) -> str:
        return f'TOKEN = "{token(self.order, number)}"'

    def _dataset(self, number: int, part: Part) -> str:
        """Bring up one part and return its version as a kernel's source."""
        push = plan_part(self.remote, self.order.competition, part).push

        def send() -> dict[str, Any]:
            version = self.remote.dataset_create_or_version(push, progress=self.progress)
            self.remote.dataset_wait(push, version, progress=self.progress, limit_s=READY_S)
            return {"version": version}

        effect = {"ref": push.ref, "mark": push.mark}
        got = self.steps.once(f"dataset {number} {part.name}", effect, send)
        return f"{push.ref}/{got['version']}"

    def _follow(self, number: int, pushed: Mapping[str, Any]) -> Session:
        ref, version = str(pushed["ref"]), int(pushed["version"])
        stretch = self._stretch(pushed)

        def wait() -> dict[str, Any]:
            self.progress.note(
                f"session {number}: {PAGE}/{ref}, version {version}, ends by itself after "
                f"{float(pushed['seconds']) / 3600:.2f} h; only its page can stop it sooner"
            )
            limit_s = float(pushed["seconds"])
            ended = self.remote.kernel_status(ref, version).ended
            status = follow_kernel(
                self.remote, ref, version, limit_s=limit_s + QUEUE_S, progress=self.progress
            )
            log = self.remote.kernel_log(ref, version)
            closed = settle.end_kernel(
                self.records, stretch, status, log, limit_s=limit_s, noticed=ended
            )
            told = {"status": status.name, "seconds": closed.seconds or 0.0}
            return told | {"failed": [] if status.complete else said_of(ref, version, status, log)}

        ran = self.steps.once(f"run {number}", {"ref": ref, "version": version}, wait)
        session = Session(number, ref, version, float(ran["seconds"]))
        if ran["failed"] and not self._told(number):
            raise RemoteError(
                "\n".join(ran["failed"]),
                hint="mend it; the same command goes on from the last whole session",
            )
        if ran["status"] != "COMPLETE":
            return session
        left = self.steps.once(
            f"pull {number}", {"ref": ref, "version": version}, lambda: self._pull(session)
        )
        if "lost" in left:
            told = str(left["lost"])
            self.progress.note(f"session {number} counts as lost: {told}")
            return Session(number, ref, version, session.seconds, {}, told, tuple(left["kept"]))
        return Session(number, ref, version, session.seconds, left)

    def _told(self, number: int) -> bool:
        """Tell whether an earlier command said how a session failed: this one goes on after it."""
        name = f"told {number}"
        told = self._noted(name) is not None
        self.steps.once(name, {}, lambda: {"told": True})
        return told

    def _pull(self, session: Session) -> dict[str, Any]:
        folder = self.work / f"{self.order.key}-{session.number}"
        where, mark = (session.ref, session.version), token(self.order, session.number)
        told = train_pull.bring(
            self.remote, *where, mark, folder, self.runs, progress=self.progress
        )
        shutil.rmtree(folder, ignore_errors=True)
        return told

    def _stretch(self, pushed: Mapping[str, Any]) -> HoursRow:
        row = HoursRow(
            profile=self.remote.profile,
            account=self.remote.account(),
            kind="train",
            competition=self.order.competition,
            subject=", ".join(one.run for one in self.order.jobs),
            place="kaggle",
            accelerator=self.order.accelerator,
            started=str(pushed["at"]),
            forecast_seconds=float(pushed["seconds"]),
            detail={"kernel": f"{pushed['ref']}/v{pushed['version']}"},
        )
        return hours.begin(self.records, row)

    def _noted(self, name: str) -> Mapping[str, Any] | None:
        found = self.records.select(StepRow, job=self.order.job, name=name)
        return found[0].result if found else None

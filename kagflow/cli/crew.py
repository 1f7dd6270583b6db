"""Train in child processes: one job on each of several devices, or several processes for one."""

from __future__ import annotations

import os
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any

from kagflow import process
from kagflow.cli.devices import Slot
from kagflow.errors import KagflowError, LocalError
from kagflow.progress import Progress

if TYPE_CHECKING:
    from kagflow.learn.job import Job

LOG = "train.log"
POLL = 0.1
_TAIL = 1500

OnEpoch = Callable[[dict[str, Any]], None]


class Crew:
    """The trainings under way; the first signal asks each to save and stop, the second ends it."""

    def __init__(self, slots: Sequence[Slot]) -> None:
        self.slots = slots
        self.signals = 0
        self._working: dict[int, _Child] = {}
        self._share = (os.cpu_count() or 1) // len(slots)

    def train(
        self, job: Job, slot: Slot, progress: Progress, on_epoch: OnEpoch | None = None
    ) -> dict[str, Any]:
        """Train a job on a slot's devices and return its result's summary.

        Raises KeyboardInterrupt after a signal, and the child's own error.
        """
        child = _Child(job, slot, slot.environment(self._share))
        self._working[id(child)] = child
        try:
            if self.signals:
                raise KeyboardInterrupt
            ending = child.watch(progress, on_epoch)
        finally:
            del self._working[id(child)]
            child.close()
        if "result" in ending:
            return dict(ending["result"])
        if self.signals or ending["what"] == "interrupted":
            raise KeyboardInterrupt
        raise _error(ending)

    @contextmanager
    def signalled(self) -> Iterator[None]:
        """Pass signals on to the children while the block runs; they are in sessions of their own.

        Only in the main thread, which alone may set handlers.
        """
        numbers = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
        before = {number: signal.signal(number, self._pass_on) for number in numbers}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def _pass_on(self, number: int, frame: FrameType | None) -> None:
        del number, frame
        self.signals += 1
        for child in list(self._working.values()):
            child.stop(at_once=self.signals > 1)


class _Child:
    """One training: its process, or torchrun's with those that it started."""

    def __init__(self, job: Job, slot: Slot, environment: dict[str, str]) -> None:
        from kagflow.learn import child, relay

        # Not in the run's folder: a kill would leave it there.
        self._folder = tempfile.TemporaryDirectory(prefix="kagflow-train-")
        told, news = (Path(self._folder.name) / name for name in ("job.json", "news.jsonl"))
        child.write(told, _on(job, slot), news=news)
        job.run_dir.mkdir(parents=True, exist_ok=True)
        self.log = job.run_dir / LOG
        self._follower, self._processes = relay.Follower(news), list[int]()
        argv = [sys.executable, "-m", *_launcher(slot), child.__name__, str(told)]
        with self.log.open("ab") as log:
            self._started = process.spawn(
                argv, env=os.environ | environment, stdout=log, stderr=process.STDOUT
            )

    def watch(self, progress: Progress, on_epoch: OnEpoch | None) -> dict[str, Any]:
        """Pass the news on to the end; return what the training said last, or that it did not."""
        from kagflow.learn.relay import replay

        ending: dict[str, Any] = {}
        running = True
        while running:
            # Once more after the end: the last news may have come since the last look.
            running = self._started.poll() is None
            for news in self._follower.news():
                if news["what"] == "process":
                    self._processes.append(int(news["id"]))
                elif not replay(news, progress, on_epoch):
                    # Of several processes the first one's word counts: the others follow from it.
                    ending = ending or news
            if running:
                time.sleep(POLL)
        return ending or self._silent()

    def stop(self, *, at_once: bool) -> None:
        """Ask the training to save and stop; `at_once` ends it as it is."""
        number = signal.SIGKILL if at_once else signal.SIGTERM
        # torchrun would end the others within seconds, saved or not: they tell each other.
        for one in self._processes or [self._started.pid]:
            with suppress(ProcessLookupError):
                os.kill(one, number)

    def close(self) -> None:
        """End whatever is left, and wait for it."""
        if self._started.poll() is None:
            self._started.kill()
            self._started.wait()
        self._folder.cleanup()

    def _silent(self) -> dict[str, Any]:
        code = self._started.returncode
        how = f"was ended by {signal.Signals(-code).name}" if code < 0 else f"ended with {code}"
        tail = self.log.read_text(errors="replace")[-_TAIL:].strip()
        killed = "; memory may have run out" if code == -signal.SIGKILL else ""
        text = f"the training process {how}{killed}: {tail or 'it said nothing'}"
        return {"what": "error", "error": text, "hint": f"see {self.log}", "code": 7}


def _launcher(slot: Slot) -> list[str]:
    if len(slot.devices) == 1:
        return []
    count = str(len(slot.devices))
    return ["torch.distributed.run", "--standalone", "--nproc-per-node", count, "-m"]


def _on(job: Job, slot: Slot) -> Job:
    from dataclasses import replace

    return replace(job, device=slot.inside)


def _error(ending: dict[str, Any]) -> KagflowError:
    kinds: list[type[KagflowError]] = [KagflowError, *KagflowError.__subclasses__()]
    kind = {one.exit_code: one for one in kinds}.get(ending["code"], LocalError)
    return kind(ending["error"], hint=ending["hint"])

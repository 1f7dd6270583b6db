"""Run pushed kernels one after the other, as saves or hidden reruns, and score submissions."""

from __future__ import annotations

import json
import queue
import random
import shutil
import sqlite3
import threading
import time
import traceback
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

from kagflow import durable, fingerprint, resources, workspace
from kagflow.errors import KagflowError
from kagflow.rehearse import datasets, lies
from kagflow.rehearse.cells import code_of
from kagflow.rehearse.plan import Layout
from kagflow.rehearse.quota import accelerator_of
from kagflow.rehearse.sandbox import SandboxResult, SandboxSpec
from kagflow.rehearse.sandbox import run as run_in_sandbox
from kagflow.rehearse.settings import Settings
from kagflow.rehearse.store import Store, now

# Kaggle's own words for what ends a submission.
TIMEOUT = "Notebook Timeout"
THREW = "Notebook Threw Exception"
NO_CSV = "Submission CSV Not Found"
COMPUTE = "Notebook Exceeded Allowed Compute"
# Kaggle's limits on a saved run where a push names none: hours by accelerator, and memory.
SAVE_HOURS = {"gpu": 12.0, "tpu": 9.0, "none": 12.0}
SAVE_MEMORY_GB = 30.0


class Execute(Protocol):
    """Run one kernel; its log grows in `log_file`."""

    def __call__(self, spec: SandboxSpec, *, log_file: Path) -> SandboxResult:
        """Return how the kernel ended."""
        ...


@dataclass(frozen=True)
class Outcome:
    """Say how a run ended, in the words of a kernel's status and of a submission."""

    status: str
    failure: str | None
    verdict: str | None


def judge(result: SandboxResult, timeout_status: str = "CANCEL_ACKNOWLEDGED") -> Outcome:
    """Translate a sandbox's result; a time-limit kill shows as cancelled, as on Kaggle."""
    if result.timed_out:
        text = f"Your notebook was stopped after {result.seconds:.0f} s: it ran past its time limit"
        return Outcome(timeout_status, text, TIMEOUT)
    if result.out_of_memory:
        text = "Your notebook tried to allocate more memory than is available"
        return Outcome("ERROR", text, COMPUTE)
    if result.returncode:
        return Outcome("ERROR", f"Notebook exited with code {result.returncode}", THREW)
    return Outcome("COMPLETE", None, None)


def open_session(
    db: sqlite3.Connection, version: int, kind: str, request: dict[str, Any], cap_s: float
) -> int:
    """Record a run, "save" or "rerun", of a kernel version and return its number.

    Its time limit is what the push asked for, at most `cap_s` seconds.
    """
    limit = min(float(request.get("sessionTimeoutSeconds") or cap_s), cap_s)
    row = db.execute(
        "INSERT INTO session (version, kind, accelerator, status, limit_s, created) "
        "VALUES (?, ?, ?, 'QUEUED', ?, ?)",
        (version, kind, accelerator_of(request), limit, now()),
    )
    return int(row.lastrowid or 0)


def find_output(store: Store, session: int, name: str) -> Path | None:
    """Return an output file of a run; None when it is missing, or a link that leads elsewhere."""
    working = session_folder(store, session) / "working"
    path = (working / name).resolve()
    return path if path.is_relative_to(working) and path.is_file() else None


def session_folder(store: Store, session: int) -> Path:
    """Return the folder of one run: kernel.py, working/, log.json."""
    return store.path / "sessions" / str(session)


class Runner:
    """Execute sessions in order on one thread: a machine shared by two runs times neither."""

    def __init__(self, store: Store, execute: Execute = run_in_sandbox) -> None:
        self.store = store
        self._execute = execute
        self._queue: queue.Queue[int] = queue.Queue()

    def start(self) -> None:
        """Close what a kill cut off, take up what was queued, and begin working.

        A run in flight at a kill is an error and is not tried again: it may be what killed us.
        """
        cut = "The server stopped during this run"
        self.store.execute(
            "UPDATE session SET status = 'ERROR', failure = ?, finished = ? "
            "WHERE status = 'RUNNING'",
            (cut, now()),
        )
        self.store.execute(
            "UPDATE submission SET status = 'ERROR', error = ? WHERE status = 'PENDING' "
            "AND session IN (SELECT id FROM session WHERE status = 'ERROR')",
            (f"{THREW}: {cut}",),
        )
        waiting = {
            row["id"] for row in self.store.rows("SELECT id FROM session WHERE status = 'QUEUED'")
        }
        waiting |= {
            row["session"]
            for row in self.store.rows("SELECT session FROM submission WHERE status = 'PENDING'")
        }
        for session in sorted(waiting):
            self._queue.put(session)
        threading.Thread(target=self._work, daemon=True).start()

    def enqueue(self, session: int) -> None:
        """Take a recorded session in line: its run, and the submissions that wait for it."""
        self._queue.put(session)

    def _work(self) -> None:
        while True:
            session = self._queue.get()
            try:
                self._step(session)
            except Exception:  # noqa: BLE001 -- one bad run must not end the service for the others
                self._finish(session, Outcome("ERROR", traceback.format_exc(limit=3), THREW), 0.0)
                self._verdict_all(session, THREW)

    def _step(self, session: int) -> None:
        row = self.store.row("SELECT * FROM session WHERE id = ?", (session,))
        assert row is not None
        verdict: str | None = None
        if row["status"] == "QUEUED":
            verdict = self._run(row)
        for submission in self.store.rows(
            "SELECT * FROM submission WHERE session = ? AND status = 'PENDING'", (session,)
        ):
            if verdict:
                self._close(submission["ref"], error=verdict)
            else:
                self._score(submission)

    def _run(self, row: sqlite3.Row) -> str | None:
        """Run one session to its end; return the verdict on a submission that waits for it."""
        session = row["id"]
        time.sleep(max(0.0, self.store.settings.kernel_queue_s))
        self.store.execute(
            "UPDATE session SET status = 'RUNNING', started = ? WHERE id = ?", (now(), session)
        )
        folder = session_folder(self.store, session)
        shutil.rmtree(folder, ignore_errors=True)
        (folder / "working").mkdir(parents=True)
        try:
            result = self._execute(self._spec(row, folder), log_file=folder / "log.json")
        except KagflowError as error:
            # A machine without a sandbox is not the kernel's fault, but its run has failed.
            outcome = Outcome("ERROR", f"{error.message} {error.hint}".strip(), THREW)
            self._finish(session, outcome, 0.0)
            return outcome.verdict
        outcome = judge(result, self.store.settings.timeout_status)
        self._finish(session, outcome, result.seconds)
        return outcome.verdict

    def _spec(self, row: sqlite3.Row, folder: Path) -> SandboxSpec:
        version = self.store.row("SELECT * FROM kernel_version WHERE id = ?", (row["version"],))
        assert version is not None
        request = json.loads(version["request"])
        script = folder / "kernel.py"
        settings = self.store.settings
        durable.write_text(script, lies.told(settings, row["accelerator"], source_of(request)))
        rerun = row["kind"] == "rerun"
        slug, tree = self._competition_input(request, folder, rerun=rerun)
        memory = self.store.competition(slug).memory_gb if slug else SAVE_MEMORY_GB
        return SandboxSpec(
            script=script,
            competition_slug=slug or "none",
            competition_input=tree,
            datasets=self._datasets(request),
            kernels={
                name: session_folder(self.store, session) / "working"
                for name, session in request.get("pinnedKernels", {}).items()
            },
            working=folder / "working",
            fingerprint=replace(
                fingerprint.load_snapshot(settings.image), digest=settings.image_digest
            ),
            rerun=rerun,
            time_limit_s=row["limit_s"],
            memory_bytes=int(memory * 2**30),
            layout=layout_of(settings, row["id"]),
        )

    def _competition_input(
        self, request: dict[str, Any], folder: Path, *, rerun: bool
    ) -> tuple[str | None, Path]:
        for slug in request.get("competitionDataSources", []):
            if self.store.has_competition(slug):
                tree = self.store.rerun_tree(slug) if rerun else self.store.save_tree(slug)
                return slug, tree
        nothing = folder / "no-competition"
        nothing.mkdir(exist_ok=True)
        return None, nothing

    def _datasets(self, request: dict[str, Any]) -> dict[str, Path]:
        # The versions were pinned at push, so that a rerun sees what the save saw.
        found = (datasets.by_source(self.store, ref) for ref in request.get("pinnedDatasets", []))
        return {f"{version.owner}/{version.slug}": version.tree for version in found if version}

    def _finish(self, session: int, outcome: Outcome, seconds: float) -> None:
        self.store.execute(
            "UPDATE session SET status = ?, failure = ?, finished = ?, seconds = ? WHERE id = ?",
            (outcome.status, outcome.failure, now(), seconds, session),
        )

    def _verdict_all(self, session: int, verdict: str) -> None:
        self.store.execute(
            "UPDATE submission SET status = 'ERROR', error = ? "
            "WHERE session = ? AND status = 'PENDING'",
            (verdict, session),
        )

    def _score(self, submission: sqlite3.Row) -> None:
        # Not at the top: the service answers sooner without numpy.
        from kagflow.rehearse.scorer import ScoringError, score_with

        facts = self.store.competition(submission["competition"])
        path = find_output(self.store, submission["session"], submission["file_name"])
        if path is None:
            self._close(submission["ref"], error=NO_CSV)
            return
        solution = self.store.competition_folder(facts.slug) / "solution.csv"
        try:
            scored = score_with(_code(self.store), path, solution, facts.task)
        except ScoringError as error:
            self._close(submission["ref"], error=f"Submission {error.message}")
            return
        self.store.execute(
            "UPDATE submission SET status = 'COMPLETE', public = ?, private = ?, bytes = ? "
            "WHERE ref = ?",
            (
                f"{scored.public.value:.5f}",
                f"{scored.private.value:.5f}" if scored.private else None,
                path.stat().st_size,
                submission["ref"],
            ),
        )

    def _close(self, ref: int, *, error: str) -> None:
        self.store.execute(
            "UPDATE submission SET status = 'ERROR', error = ? WHERE ref = ?", (error, ref)
        )


def layout_of(settings: Settings, session: int) -> Layout:
    """Return where a run finds its inputs; "random" draws for each run, the same each time."""
    if settings.mount_layout == "random":
        draw = random.Random(f"{settings.mount_seed}:{session}")  # noqa: S311 -- not a secret
        return draw.choice(("nested", "flat"))
    return "flat" if settings.mount_layout == "flat" else "nested"


def _code(store: Store) -> list[Path]:
    """Return the folders whose packages are competitions: the workspace's, then the shipped one."""
    # From above the store, which has a folder of that name itself.
    root = workspace.find(store.path.parent, "local").root
    return [root / "competitions", resources.competitions()]


def source_of(request: dict[str, Any]) -> str:
    """Return the Python source of a push."""
    return code_of(str(request.get("text") or ""), str(request.get("kernelType") or ""))

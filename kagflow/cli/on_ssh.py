"""Train on a host that ssh reaches: rented, borrowed, or the one under the desk."""

from __future__ import annotations

import shlex
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from kagflow.cli import away, competitions, handed, jobs, words
from kagflow.cli.executors import Order
from kagflow.cli.jobs import Job
from kagflow.cli.ssh_outcome import Told, outcome
from kagflow.cli.sweep import Outcome
from kagflow.cli.told import EVERY
from kagflow.cli.watch import Watch
from kagflow.errors import NetworkError, UsageError
from kagflow.ship import hours, ssh_env, ssh_job, ssh_pull
from kagflow.ship.records import HoursRow, Records, now
from kagflow.ship.ssh import Host, Link
from kagflow.ship.ssh_ground import Ground, digest
from kagflow.ship.ssh_job import Standing
from kagflow.ship.ssh_send import ask
from kagflow.task.spec import TaskSpec
from kagflow.workspace import user_state

# A log that is read from its start again must not be long for signs of life alone.
NEWS_SECONDS = 5.0


class OnSsh:
    """Train on a host in a run that survives the connection."""

    def __init__(self, host: str) -> None:
        self.host = Host.parse(host)

    def run(self, order: Order, *, attach: bool) -> Outcome:
        """Hand over unless handed over before, follow, bring back verified.

        Raises what `Link.open` raises, LocalError for what the host lacks, UsageError where there
        is nothing to attach to or nothing was fetched.
        """
        if order.planned and all(_finished(job) for job in order.planned):
            return outcome(order, Told())
        ground = _ground(order)
        with (
            Watch(order.session.out, order.known.config.classes) as watch,
            Link(self.host, watch) as link,
        ):
            _introduce(order, link)
            return _Visit(order, link, ground).run(attach=attach)


@dataclass
class _Visit:
    """One command's dealings with a host."""

    order: Order
    link: Link
    ground: Ground

    def run(self, *, attach: bool) -> Outcome:
        job, planned = self._which(attach=attach)
        standing = ssh_job.find(self.link, job)
        if standing.state != "running":
            # What ended while nobody looked comes first.
            if standing.state != "none":
                self._count(planned, standing)
                self._bring(planned)
            if attach:
                return self._came(job, planned, standing)
            left = away.unfinished(self.order)
            if not left:
                return self._came(job, planned, standing)
            standing = self._hand_over(job, left)
        return self._follow(job, planned, standing)

    def _which(self, *, attach: bool) -> tuple[str, Sequence[Job]]:
        if self.order.planned:
            job = _key(self.ground, self.order.planned)
            if not attach or ssh_job.find(self.link, job).state != "none":
                return job, self.order.planned
        elif found := ask(self.link, "newest", space=self.ground.space)["job"]:
            note = ssh_job.find(self.link, found).note
            return found, _planned(self.order, note["words"])
        raise UsageError(
            f"nothing of this was handed over to {self.link.host}",
            hint="leave out --attach to train it there",
        )

    def _hand_over(self, job: str, left: Sequence[Job]) -> Standing:
        order, link = self.order, self.link
        python = ssh_env.ready(link, ssh_env.needs(away.requires(order)))
        with tempfile.TemporaryDirectory(prefix="kagflow-load-") as made:
            laid = self.ground.lay(
                link, job, away.build_load(order, Path(made), hub=True, test_images=True)
            )
        deadline = _deadline(order)
        command = [python, "-P", "-m", "kagflow.cli.app", "--json"]
        training = {
            "cwd": laid.root,
            "env": {
                "PYTHONPATH": laid.code,
                "KAGFLOW_HOME": f"{link.home}/state",
                EVERY: str(NEWS_SECONDS),
            },
            "kept": True,
            "anyway": True,
        }
        asked = _commands(order, left, limited=deadline is not None)
        steps = [laid.step(python), *({"argv": [*command, *one], **training} for one in asked)]
        note = {
            "space": self.ground.space,
            "started": now(),
            "words": [list(one.words) for one in order.planned],
            "accelerator": next(iter(link.facts["gpus"]), "cpu"),
        }
        with handed.noted(
            order.session, order.known, order.planned,
            host=str(link.host), job=job, started=str(note["started"]),
        ):  # fmt: skip
            standing, fresh = ssh_job.start(link, job, steps, deadline=deadline, note=note)
        what = "trains" if fresh else "trains already, and goes on,"
        order.session.out.say(f"{link.host} {what} in process {standing.pid}")
        return standing

    def _follow(self, job: str, planned: Sequence[Job], standing: Standing) -> Outcome:
        self._count(planned, standing)
        try:
            ended, tail = ssh_job.follow(self.link, job, self.link.progress.note)
        except KeyboardInterrupt:
            self.link.progress.finish()
            self._detached(standing)
            left = [one for one in planned if not _finished(one)]
            return Outcome(interrupted=True, left=left)
        except NetworkError as error:
            error.hint = f"it goes on there; {self._again()} follows it again"
            raise
        self.link.progress.finish()
        self._count(planned, ended)
        self._bring(planned)
        return self._came(job, planned, ended, tail)

    def _came(
        self, job: str, planned: Sequence[Job], ended: Standing, tail: Sequence[str] = ()
    ) -> Outcome:
        texts = ask(self.link, "said", job=job)["texts"]
        told = Told(str(self.link.host), ended.code, ended.late, tuple(texts), tuple(tail))
        return outcome(self.order, told, planned)

    def _bring(self, planned: Sequence[Job]) -> None:
        for one in planned:
            ssh_pull.bring(self.link, self.ground.runs, _inside(one), one.folder)

    def _detached(self, standing: Standing) -> None:
        say, host = self.order.session.out.say, self.link.host
        say(f"{host} trains on; follow it again: {self._again()}")
        if standing.pid is not None:
            say(f"to stop it, all saved: ssh {shlex.quote(host.target)} kill {standing.pid}")

    def _again(self) -> str:
        return self.order.session.command(f"{self.order.typed} --attach")

    def _count(self, planned: Sequence[Job], standing: Standing) -> None:
        """Note the hours there, once for each start; a stretch that nobody saw end stays open."""
        if standing.note is None:
            return
        records = Records(user_state())
        row = hours.begin(
            records,
            HoursRow(
                profile=self.order.session.workspace.profile,
                account="",
                kind="train",
                competition=self.order.known.name,
                subject=", ".join(_inside(one) for one in planned),
                place=f"ssh:{self.link.host}",
                accelerator=str(standing.note["accelerator"]),
                started=str(standing.note["started"]),
            ),
        )
        if standing.state != "running":
            hours.end(records, row, seconds=standing.seconds, noticed=True)


def _introduce(order: Order, link: Link) -> None:
    facts = link.open()
    gpus = ", ".join(facts["gpus"]) or f"no GPU ({facts['driver']})"
    free = facts["free"] / 1e9
    order.session.out.say(
        f"{link.host}: {gpus}; Python {facts['version']}; {free:.0f} GB free in {facts['home']}"
    )


def _ground(order: Order) -> Ground:
    competitions.manifest(order.session.workspace, order.known)
    workspace, name, spec = order.session.workspace, order.known.name, order.known.config.task()
    return Ground(workspace, name, spec, tuple(_caches(order, workspace.data(name), spec)))


def _caches(order: Order, data: Path, spec: TaskSpec) -> Iterator[Path]:
    """Yield the folders of decoded images that exist here; one too large for the way is made there.

    What is decoded takes a byte a pixel, a JPEG a fraction of that.
    """
    from kagflow.learn.cache import Part, place
    from kagflow.learn.job import pair
    from kagflow.task.folds import read_folds

    folder = order.session.workspace.cache / "images"
    part = Part(set(read_folds(data / "folds.csv")), {})
    sent = sum(file.stat().st_size for file in part.files(data / spec.train_images))
    for size in {pair(one.recipe.size) for one in order.planned}:
        found = place(data, spec, size, part=part, folder=folder)
        if found.is_dir() and sum(file.stat().st_size for file in found.iterdir()) <= 2 * sent:
            yield found


def _key(ground: Ground, planned: Sequence[Job]) -> str:
    """Return a job's name: the same runs of the same data are the same job."""
    runs = [[_inside(one), one.recipe.model_dump(mode="json")] for one in planned]
    return digest([ground.space, sorted(runs, key=lambda one: str(one[0]))])


def _planned(order: Order, spoken: Sequence[Sequence[str]]) -> list[Job]:
    """Return the jobs that a note on the host names."""
    found = [jobs.plan(order.session, order.known, words.split(one).overrides) for one in spoken]
    return [job for some in found for job in some]


def _commands(order: Order, left: Sequence[Job], *, limited: bool) -> list[list[str]]:
    """Return the words of each command: folds of one run go in one, so that GPUs share them."""
    runs: dict[str, list[Job]] = {}
    for one in left:
        runs.setdefault(one.run, []).append(one)
    return [
        [
            f"fold={','.join(str(one.fold) for one in some)}" if word.startswith("fold=") else word
            for word in away.words(order, some[0])
        ]
        # The host puts in what is left when the training begins.
        + (["budget={left}s"] if limited else [])
        + ([] if order.how.device == "auto" else ["--device", order.how.device])
        for some in runs.values()
    ]


def _deadline(order: Order) -> float | None:
    """Return in how many seconds the host must be done."""
    limits = [] if order.hours is None else [order.hours * 3600]
    limits += [] if order.how.until is None else [order.how.until - time.monotonic()]
    return min(limits) if limits else None


def _inside(job: Job) -> str:
    return f"{job.run}/{job.folder.name}"


def _finished(job: Job) -> bool:
    return (job.folder / "run.json").is_file()

"""What a training on Kaggle is: its jobs, its two parts, how long a session may last."""

from __future__ import annotations

import hashlib
import json
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kagflow.fingerprint import Fingerprint
from kagflow.progress import QUIET, Progress
from kagflow.ship import load, pack, parts, whole
from kagflow.ship.budget import Action, Judgement
from kagflow.ship.hours import family
from kagflow.ship.parts import Part
from kagflow.ship.plan_datasets import slugify
from kagflow.ship.plan_hours import quota_left
from kagflow.ship.records import Records
from kagflow.ship.remote import Remote
from kagflow.ship.wheels import missing_wheels, own_shelf

CODE = "code"
TURNS = ("a", "b")
PREFIX = "train"
# Kaggle ends a session after 12 hours; it is not known what of them its start takes.
SESSION_S = 11.5 * 3600
# What a session keeps back for the last checkpoint and its hashes: a tenth of a short one.
RESERVE_S, RESERVE_SHARE = 300.0, 0.1
# A session of less is all start and end.
LEAST_SESSION_S = 60.0


@dataclass(frozen=True)
class TrainJob:
    """One run to train: its folder below the competition's runs, and kagflow's words for it.

    `seconds` is what it is forecast to take there, None where nobody knows.
    """

    run: str
    words: tuple[str, ...]
    gpus: int = 1
    seconds: float | None = None


@dataclass(frozen=True)
class TrainOrder:
    """Ask for jobs; `key` names them, `runs` is where runs lie below a workspace.

    `hours` bounds all sessions together, `task` is what the kernel must know of the competition.
    """

    key: str
    competition: str
    slug: str
    jobs: tuple[TrainJob, ...]
    runs: str
    accelerator: str
    task: Mapping[str, Any]
    hours: float
    over_quota: bool = False

    @property
    def job(self) -> str:
        """The name of its steps among the records."""
        return f"{PREFIX}:{self.key}"

    @property
    def limit_s(self) -> float:
        """Seconds that all sessions together may last."""
        return self.hours * 3600

    def title(self, turn: str) -> str:
        """Return the title of a session's kernel: two take turns, each the other's source."""
        name = slugify(self.competition)[:22].strip("-")
        return f"kagflow {name} train {self.key[:6]} {turn}"

    def kernel(self, account: str, turn: str) -> str:
        """Return where a session's kernel goes."""
        return f"{account}/{self.title(turn).replace(' ', '-')}"


def key_of(remote: Remote, competition: str, made_from: Sequence[Any]) -> str:
    """Return the name of an order: the same account, jobs, code and data give the same."""
    facts = [remote.profile, remote.account(), competition, *made_from]
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:12]


def build_code(
    root: Path,
    *,
    fingerprint: Fingerprint,
    requires: Iterable[str],
    allow_replace: Iterable[str] = (),
    progress: Progress = QUIET,
) -> Part:
    """Write the whole wheel and those that the image lacks as `root/<hash>/`.

    Raises what `missing_wheels` raises.
    """
    with tempfile.TemporaryDirectory(prefix="kagflow-code-") as temporary:
        work = Path(temporary)
        asked = {whole.NAME: whole.requirements(), "competition.yaml": tuple(requires)}
        closure = missing_wheels(
            asked,
            fingerprint,
            own_shelf(work),
            allow_replace=tuple(allow_replace),
            progress=progress,
        )
        files = [whole.build_whole(work), *(one.file for one in closure.wheels)]
        sources = {file.name: file for file in files}
        facts = pack.file_facts({CODE: sources}, progress)[CODE]
        manifest = pack.seal_code(CODE, facts, fingerprint, asked, closure)
        return load.place_part(root, manifest, sources)


def read_parts(root: Path, named: Mapping[str, str]) -> tuple[Part, Part]:
    """Read code and load of an order, checked byte by byte; `named` are their hashes."""
    return (
        parts.read_part(root / CODE / named[CODE], CODE),
        parts.read_part(root / load.LOAD / named[load.LOAD], load.LOAD),
    )


def judge(order: TrainOrder, remote: Remote, records: Records, *, spent_s: float) -> Judgement:
    """Hold what an order may still take against the hours that are left this week.

    Where no run of such a recipe was timed there, its hours are all that it may spend.
    """
    view = remote.quota()
    kind = family(order.accelerator)
    left = quota_left({"gpu": view.gpu, "tpu": view.tpu}.get(kind or ""), order.accelerator,
                      remote, records)  # fmt: skip
    return Judgement(tuple(_actions(order, spent_s)) if kind else (), left, view.refresh)


def session_s(order: TrainOrder, judgement: Judgement, *, spent_s: float) -> float:
    """Return how long the next session may last: Kaggle's limit, the order's and the week's."""
    most = min(SESSION_S, order.limit_s - spent_s)
    if judgement.left is None or order.over_quota:
        return most
    return min(most, judgement.left)


def reserve(seconds: float) -> float:
    """Return what of a session is kept back for its end."""
    return min(RESERVE_S, RESERVE_SHARE * seconds)


def _actions(order: TrainOrder, spent_s: float) -> Iterable[Action]:
    left = max(0.0, order.limit_s - spent_s)
    known = [one.seconds for one in order.jobs if one.seconds is not None]
    if len(known) < len(order.jobs) or sum(known) > left:
        yield Action("the training", left, left)
        return
    for one in order.jobs:
        yield Action(one.run, one.seconds or 0.0, one.seconds or 0.0)

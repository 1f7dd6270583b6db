"""Say what a submission would do, before it does anything."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from kagflow.errors import DataError, RefusedError, RemoteError
from kagflow.ship import assumptions, plan_hours
from kagflow.ship.budget import Judgement
from kagflow.ship.pack import CONFIG, read_pack
from kagflow.ship.parts import WEIGHTS
from kagflow.ship.plan_datasets import DatasetPlan, plan_datasets, slugify
from kagflow.ship.records import Records, SubmissionRow
from kagflow.ship.remote import Remote
from kagflow.ship.remote_competitions import SITE

KAGGLE = "kaggle"  # the profile that need not be named
METADATA = "kernel-metadata.json"
KERNEL = ("id", "title", "code_file", "kernel_type", "machine_shape")
SESSION_S = 12 * 3600.0  # Kaggle's own limit on a run


@dataclass(frozen=True)
class Measured:
    """Hold what a rehearsal measured beyond `facts`; None where it did not.

    `save_s` is how long the kernel proves itself on a few images. `cpu_minutes` is the projection
    without an accelerator, which `cpu_command` would submit.
    """

    save_s: float | None = None
    cpu_minutes: float | None = None
    cpu_command: str = ""


@dataclass(frozen=True)
class SubmitRequest:
    """Ask for one submission.

    `pack` and `kernel` are folders; `timeout_s` ends the session; `facts` are columns of
    SubmissionRow that only the caller knows: ensemble, runs, cv_*, floor, projected_*, receipt.
    `over_quota` goes on where the forecast does not fit into the hours that are left.
    """

    competition: str
    slug: str
    pack: Path
    kernel: Path
    timeout_s: int
    facts: Mapping[str, Any] = field(default_factory=dict)
    again: bool = False
    measured: Measured = Measured()
    over_quota: bool = False


@dataclass(frozen=True)
class SubmitPlan:
    """Hold everything that `execute` will do; `to_dict` is what a person or --json sees.

    `most_s` is the longest that the run may take; `machine` what its machine shape was seen to
    give, None where nobody looked.
    """

    profile: str
    account: str
    competition: str
    slug: str
    pack: str
    attempt: int
    datasets: tuple[DatasetPlan, ...]
    kernel: str
    title: str
    kernel_type: str
    script: Path
    image: str
    accelerator: str
    timeout_s: int
    message: str
    rerun: str
    quota_left_s: float | None
    submissions_left: int | None
    most_s: float
    machine: str | None
    previous: SubmissionRow | None
    facts: Mapping[str, Any]
    again: bool
    judgement: Judgement
    over_quota: bool

    @property
    def pushes(self) -> bool:
        """Tell whether this attempt's kernel is yet to be pushed, as far as history knows."""
        last = self.previous
        return last is None or last.attempt != self.attempt or last.kernel_version is None

    @property
    def token(self) -> str:
        """The mark by which this very attempt is found again among the submissions."""
        return attempt_token(self.pack, self.attempt)

    def command(self, words: str) -> str:
        """Return a command as it must be typed where this plan's Kaggle is meant."""
        return f"kagflow {words}" + ("" if self.profile == KAGGLE else f" --profile {self.profile}")

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON values."""
        quota = self.quota_left_s
        return {
            "profile": self.profile,
            "account": self.account,
            "competition": self.competition,
            "slug": self.slug,
            "pack": self.pack,
            "attempt": self.attempt,
            "datasets": [one.to_dict() for one in self.datasets],
            "kernel": self.kernel,
            "title": self.title,
            "kernel_type": self.kernel_type,
            "image": self.image or None,
            "accelerator": self.accelerator,
            "machine": self.machine,
            "timeout_s": self.timeout_s,
            "most_hours": round(self.most_s / 3600, 2),
            "internet": False,
            "private": True,
            "message": self.message,
            "rerun": self.rerun,
            "hours": self.judgement.to_dict(),
            "over_quota": self.over_quota,
            "quota_left_hours": None if quota is None else round(quota / 3600, 2),
            "submissions_left": self.submissions_left,
            "previous": self.previous.status if self.previous else None,
            "again": self.again,
        }


def kernel_title(competition: str, *, notebook: bool = False) -> str:
    """Return the kernel's title, which reads as its slug."""
    return f"kagflow {slugify(competition)}{' notebook' if notebook else ''}"


def kernel_slug(competition: str, *, notebook: bool = False) -> str:
    """Return the slug that Kaggle makes of the title."""
    return kernel_title(competition, notebook=notebook).replace(" ", "-")


def attempt_token(pack: str, attempt: int) -> str:
    """Return the mark of one attempt to submit one pack."""
    return f"[kagflow {pack}/{attempt}]"


def make_plan(request: SubmitRequest, remote: Remote, records: Records) -> SubmitPlan:
    """Look at pack, kernel, Kaggle and history, and say what submitting would do.

    Raises DataError for a damaged pack or kernel folder, RefusedError for a kernel that asks for
    the internet, RemoteError where the rules are not accepted.
    """
    pack, metadata = read_pack(request.pack), _metadata(request)
    info = remote.competition(request.slug)
    if not info.entered:
        raise RemoteError(
            f"{request.slug}: this account has not accepted the competition's rules",
            hint=f"accept them on {SITE}/competitions/{request.slug}/rules",
        )
    account, assumed = remote.account(), partial(assumptions.value, remote.state)
    previous = _previous(records, request, remote.profile, account, pack.hash)
    attempt = _attempt(request, remote, previous, pack.hash)
    accelerator = str(metadata["machine_shape"])
    rerun = _rerun(request, remote)
    judgement = plan_hours.judge(request, remote, records, accelerator=accelerator, rerun=rerun)
    return SubmitPlan(
        profile=remote.profile,
        account=account,
        competition=request.competition,
        slug=request.slug,
        pack=pack.hash,
        attempt=attempt,
        datasets=plan_datasets(remote, request.competition, pack),
        kernel=f"{account}/{str(metadata['id']).partition('/')[2]}",
        title=str(metadata["title"]),
        kernel_type=str(metadata["kernel_type"]),
        script=request.kernel / str(metadata["code_file"]),
        image=str(pack.env.manifest.get("digest", "")),
        accelerator=accelerator,
        timeout_s=request.timeout_s,
        message=_message(request.facts, pack.hash, attempt),
        rerun=rerun,
        quota_left_s=judgement.left,
        submissions_left=remote.limits(request.slug).left,
        most_s=request.timeout_s if assumed("timeout_honoured") else SESSION_S,
        machine=assumed("machine", accelerator),
        previous=previous,
        facts=dict(request.facts),
        again=request.again,
        judgement=judgement,
        over_quota=request.over_quota,
    )


def _metadata(request: SubmitRequest) -> dict[str, Any]:
    path = request.kernel / METADATA
    try:
        found = dict(json.loads(path.read_text()))
        kernel = {key: found[key] for key in KERNEL}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(f"{path} does not describe a kernel: {error!r}") from None
    if found.get("enable_internet") is not False or found.get("is_private") is not True:
        raise RefusedError(
            f"{path}: a submitted kernel is private and has no internet",
            hint="remove the folder and pack again",
        )
    if found.get("competition_sources") != [request.slug]:
        raise DataError(f"{path} is a kernel of {found.get('competition_sources')}")
    return kernel


def _previous(
    records: Records, request: SubmitRequest, profile: str, account: str, pack: str
) -> SubmissionRow | None:
    rows = records.select(
        SubmissionRow,
        profile=profile,
        account=account,
        competition=request.competition,
        pack=pack,
    )
    return rows[-1] if rows else None


def _attempt(
    request: SubmitRequest, remote: Remote, previous: SubmissionRow | None, pack: str
) -> int:
    """Return the attempt to make or to continue; a new one never doubles a submission unasked."""
    if previous is None:
        # A lost history must not make `--again` find the earlier submission and call it new.
        mark = f"[kagflow {pack}/"
        there = (
            sum(mark in item.description for item in remote.submissions(request.slug))
            if request.again
            else 0
        )
        return there + 1
    failed_unsubmitted = previous.status == "failed" and previous.ref is None
    ended = previous.status in {"scored", "failed"}
    if failed_unsubmitted or (ended and request.again):
        return previous.attempt + 1
    return previous.attempt


def _message(facts: Mapping[str, Any], pack: str, attempt: int) -> str:
    score = facts.get("cv_crossfitted")
    score = facts.get("cv_naive") if score is None else score
    worth = f" cv {score:.5f}" if isinstance(score, float) else ""
    name = facts.get("ensemble") or "kagflow"
    return f"{name}{worth} {attempt_token(pack, attempt)}"


def _rerun(request: SubmitRequest, remote: Remote) -> str:
    """Return the competition's rerun as its file says, as Kaggle was seen to do, or unknown."""
    said = json.loads((request.pack / WEIGHTS / CONFIG).read_text()).get("rerun", "unknown")
    known = assumptions.value(remote.state, "rerun", request.slug)
    return str(known if said == "unknown" else said)

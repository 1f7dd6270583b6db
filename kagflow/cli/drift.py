"""What half precision costs the weights of a pack: measured once, kept beside it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kagflow import durable
from kagflow.cli import competitions
from kagflow.cli.competitions import Known
from kagflow.cli.session import Session
from kagflow.naming import FULL, Fold
from kagflow.shards import pieces

if TYPE_CHECKING:
    from kagflow.infer.drift import Shown
    from kagflow.task.spec import TaskSpec

# Images of each member, shared among its folds, and the fewest of each fold.
IMAGES, FEWEST = 32, 4
SUFFIX = "drift.json"


@dataclass(frozen=True)
class _Job:
    member: int
    source: Path
    shipped: Path
    fold: Fold
    images: int
    cached: Path


def make(
    session: Session, known: Known, value: Mapping[str, Any], exported: Mapping[str, Path]
) -> list[dict[str, Any]]:
    """Return each member's drift on images that its folds did not see, as `Drift.to_dict`.

    `exported` maps the weights' names in the pack to files. A file of weights is measured once.
    """
    from kagflow.infer.drift import Drift, joined

    jobs = _jobs(session, known, value, exported)
    missing = [job for job in jobs if not job.cached.is_file()]
    if missing:
        _measure(session, known, value, missing)
    found = []
    for number, member in enumerate(value["members"]):
        files = [job.cached for job in jobs if job.member == number]
        drifts = [Drift(**json.loads(file.read_text())) for file in files]
        found.append({"member": member["run"], **joined(drifts).to_dict()})
    return found


def show(session: Session, found: Sequence[Mapping[str, Any]]) -> None:
    """Print what half precision costs each member."""
    rows = [
        (
            one["member"],
            one["images"],
            f"{one['mean']:.1e}",
            f"{one['largest']:.1e}",
            f"{one['flipped']:.4%}",
            "-"
            if one["full"] is None
            else f"{one['full']:.5f} -> {one['shipped']:.5f} ({one['shipped'] - one['full']:+.5f})",
        )
        for one in found
    ]
    head = ("member", "images", "mean", "largest", "decided otherwise", "score, fp32 -> packed")
    session.out.table("what half precision changes, out of fold", head, rows)


def digest(file: Path) -> str:
    """Return a hash of a file of weights, whole or in pieces."""
    return " ".join(durable.sha256_file(piece) for piece in pieces(file))


def _jobs(
    session: Session, known: Known, value: Mapping[str, Any], exported: Mapping[str, Path]
) -> list[_Job]:
    from kagflow.cli.pack import weight_name

    data = competitions.manifest(session.workspace, known).get("version", "")
    jobs = []
    for number, member in enumerate(value["members"]):
        count = max(FEWEST, IMAGES // len(member["weights"]))
        for file, fold in zip(member["weights"], member["folds"], strict=True):
            source, shipped = session.workspace.home / file, exported[weight_name(file)]
            facts = [member[key] for key in ("predicts", "model", "input", "size")]
            said = [data, fold, count, *facts, value["rules"], value["task"]]
            key = hashlib.sha256(json.dumps(said, sort_keys=True).encode())
            key.update(f"{durable.sha256_file(source)} {digest(shipped)}".encode())
            cached = session.workspace.cache / "drift" / f"{key.hexdigest()[:32]}.json"
            jobs.append(_Job(number, source, shipped, fold, count, cached))
    return jobs


def _measure(
    session: Session, known: Known, value: Mapping[str, Any], jobs: Sequence[_Job]
) -> None:
    from kagflow.infer import drift
    from kagflow.infer.members import members_from_config
    from kagflow.task.folds import read_folds
    from kagflow.task.labels import read_labels

    members, rules, spec = members_from_config(value, session.workspace.home)
    data = session.workspace.data(known.name)
    folds = read_folds(data / "folds.csv")
    truth = read_labels(data / spec.train_csv, spec, only=folds)
    progress = session.out.progress()
    progress.start("compare with fp32", sum(job.images for job in jobs), "images")
    for job in jobs:
        names = choose(folds, truth, job.fold, job.images)
        shown = [_shown(data, spec, name, truth) for name in names]
        files, member = (job.source, job.shipped), members[job.member]
        found = drift.measure(member, files, shown, rules, spec, progress=progress)
        durable.write_json(job.cached, found.to_dict())
    progress.finish()


def choose(
    folds: Mapping[str, tuple[int, int]],
    truth: Mapping[str, Mapping[int, str]],
    fold: Fold,
    count: int,
) -> list[str]:
    """Return `count` images of a fold, the same each time, half of them with labels if there are.

    A training on everything has no image that it did not see: it takes any.
    """
    inside = [name for name, (_, one) in folds.items() if fold in (one, FULL)]
    mixed = sorted(inside, key=lambda name: hashlib.sha256(name.encode()).digest())
    labelled = [name for name in mixed if truth.get(name)]
    clean = [name for name in mixed if not truth.get(name)]
    few = labelled[: max(count // 2, count - len(clean))]
    return [*few, *clean[: count - len(few)]]


def _shown(data: Path, spec: TaskSpec, name: str, truth: Mapping[str, Mapping[int, str]]) -> Shown:
    from kagflow.infer.drift import Shown
    from kagflow.infer.image import read_grey

    return Shown(name, read_grey(data / spec.train_images / name), truth.get(name, {}))

"""Pseudo-labels: what an ensemble says of the test images, for a fold to learn from.

Only models that held out the fold speak: whoever trained on its images would carry their labels
over. Test images that look like one that is held out are left out, by the rule that keeps
near-duplicates in one fold. What is said stays soft. It lies in a store of its own, which every
run of the fold shares, and which a run that goes on finds by its name.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import cv2
import filelock
import numpy as np
import numpy.typing as npt

from kagflow import durable
from kagflow.errors import RefusedError, UsageError
from kagflow.infer.engine import Prediction, Settings, members_from_config, predict
from kagflow.infer.members import Member
from kagflow.infer.models import nearest
from kagflow.infer.postprocess import ClassRule, vetoed
from kagflow.learn.cache import data_hash
from kagflow.learn.job import Job, pair
from kagflow.learn.oof import OofReader, OofWriter
from kagflow.learn.pseudo_images import unlabelled
from kagflow.naming import FULL, Fold, fold_folder
from kagflow.progress import QUIET, Progress
from kagflow.task.index import ImageRow

SCHEMA = 1
PLACE, NOTE = "pseudo", "pseudo.json"
PROBS = "probs"

Float = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Teacher:
    """An ensemble as one fold may hear it: `members` held the fold out, `key` names all it says."""

    name: str
    members: tuple[Member, ...]
    rules: tuple[ClassRule, ...]
    key: str


def ensure(job: Job, device: str, progress: Progress = QUIET) -> Path | None:
    """Return the store of a job's pseudo-labels, made on first use; None where it wants none.

    A run that has begun stays with the store that it began with. Raises UsageError where the
    ensemble is not there, is of other data or has no model that held the fold out; RefusedError
    where a begun run's store is lost and the ensemble is another now.
    """
    if job.recipe.get("pseudo") is None:
        return None
    noted = noted_store(job.run_dir)
    if noted is not None and (noted / NOTE).is_file():
        return noted
    teacher = find_teacher(job)
    folder = _place(job, teacher)
    if noted is not None and noted != folder:
        raise RefusedError(
            f"{job.label} began with pseudo-labels that are gone, {noted}, and ensemble "
            f"'{teacher.name}' would give others now",
            hint="put the folder back, or train under another name=",
        )
    folder.parent.mkdir(parents=True, exist_ok=True)
    with filelock.FileLock(folder.parent / f".{folder.name}.lock"):
        if not (folder / NOTE).is_file():
            _sweep(folder)
            _make(job, teacher, folder, device, progress)
    job.run_dir.mkdir(parents=True, exist_ok=True)
    durable.write_json(job.run_dir / NOTE, {"store": folder.name})
    return folder


def noted_store(run_dir: Path) -> Path | None:
    """Return the store that a run began with, whether it is there or not; None for no such run."""
    path = run_dir / NOTE
    if not path.is_file():
        return None
    return stores(run_dir) / str(json.loads(path.read_text())["store"])


def _home(run_dir: Path) -> Path:
    return run_dir.parents[3]


def files(store: Path, images: Path | None) -> list[Path]:
    """List the files of a store; with `images`, the test folder, those it is of as well."""
    found = [path for path in sorted(store.rglob("*")) if path.is_file()]
    if images is not None:
        with OofReader(store / PROBS) as reader:
            found += [images / name for name in reader.image_ids]
    return found


def told(run_dir: Path) -> dict[str, Any] | None:
    """Return what a run's store says of itself, the images left out as their number."""
    folder = noted_store(run_dir)
    if folder is None:
        return None
    note = json.loads((folder / NOTE).read_text())
    return {**note, "left_out": len(note["left_out"])}


def stores(run_dir: Path) -> Path:
    """Return where a competition's pseudo-labels lie: beside its runs."""
    return _home(run_dir) / PLACE / run_dir.parents[1].name


def find_teacher(job: Job) -> Teacher:
    """Return those of an ensemble's models that a job may hear; raises what `ensure` says."""
    name = str(job.recipe["pseudo"])
    value = _read(job, name)
    if value["data"] != data_hash(job.data):
        raise UsageError(
            f"ensemble '{name}' was made on other data than is here now",
            hint=f"kagflow ensemble --name {name} makes it anew",
        )
    members, rules, _ = members_from_config(value, _home(job.run_dir))
    wanted = job.recipe["predicts"]
    # A gate takes part in what is said of masks; of labels it alone speaks.
    kinds = ("mask", "label") if wanted == "mask" else ("label",)
    heard = [_heard(one, job.fold) for one in members if one.predicts in kinds]
    found = tuple(one for one in heard if one.weights)
    if not any(one.predicts == wanted for one in found):
        raise _nobody(job, name, members)
    return Teacher(name, found, tuple(rules), _key(job, found, rules))


def _read(job: Job, name: str) -> dict[str, Any]:
    folder = _home(job.run_dir) / "ensembles" / job.run_dir.parents[1].name
    path = folder / f"{name}.json"
    if not path.is_file():
        known = sorted(file.stem for file in folder.glob("*.json"))
        hint = nearest(name, known) if known else "kagflow ensemble makes one of finished runs"
        raise UsageError(f"there is no ensemble '{name}' to take pseudo-labels from", hint=hint)
    return dict(json.loads(path.read_text()))


def _heard(member: Member, fold: Fold) -> Member:
    """Return a member with those of its models that never saw the fold's images.

    A training on everything holds nothing out, so it may hear every fold's model.
    """
    own = fold_folder(fold)
    weights = tuple(path for path in member.weights if (path.parent.name == own) == (fold != FULL))
    return replace(member, weights=weights)


def _nobody(job: Job, name: str, members: list[Member]) -> UsageError:
    wanted = job.recipe["predicts"]
    runs = sorted({one.name for one in members if one.predicts == wanted})
    if not runs:
        return UsageError(
            f"ensemble '{name}' has no member that predicts '{wanted}'",
            hint="take a recipe that predicts what the ensemble does",
        )
    return UsageError(
        f"no model of ensemble '{name}' held out fold {job.fold}: the others saw its labels",
        hint=f"train fold={job.fold} of {', '.join(runs)} and make the ensemble anew",
    )


def _key(job: Job, members: tuple[Member, ...], rules: list[ClassRule]) -> str:
    """Name what the store holds: who speaks, of which data, at which size."""
    facts = {
        "schema": SCHEMA,
        "data": data_hash(job.data),
        "folds": durable.sha256_file(job.data / "folds.csv"),
        "fold": job.fold,
        "predicts": job.recipe["predicts"],
        "size": job.recipe["size"],
        "rules": [(rule.gate,) for rule in rules],
        "members": [
            [
                one.model, one.input, one.size, one.tta, one.mean, round(one.weight, 9),
                [durable.sha256_file(path) for path in one.weights],
                {name: durable.sha256_file(path) for name, path in one.assets.items()},
            ]
            for one in members
        ],
    }  # fmt: skip
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()


def _place(job: Job, teacher: Teacher) -> Path:
    return stores(job.run_dir) / f"{teacher.name}-{fold_folder(job.fold)}-{teacher.key[:8]}"


def _sweep(folder: Path) -> None:
    """Remove what a kill left half-made of a store, and one that has lost its note."""
    for stray in [*folder.parent.glob(f".{folder.name}.*.staging"), folder]:
        shutil.rmtree(stray, ignore_errors=True)


def _make(job: Job, teacher: Teacher, folder: Path, device: str, progress: Progress) -> None:
    """Predict the test images and write the store whole; the note comes last."""
    rows, left_out = unlabelled(job, progress)
    with durable.staging(folder) as beside:
        with OofWriter(beside / PROBS, job.recipe["predicts"], len(job.spec.classes)) as store:
            progress.start(f"pseudo-labels by {teacher.name}", len(rows), "images")
            left_out |= _predict(job, teacher, rows, store, device, progress)
            progress.finish()
        home, images = _home(job.run_dir), len(store.image_ids)
        models = [path for one in teacher.members for path in one.weights]
        note = {
            "ensemble": teacher.name,
            "key": teacher.key,
            "fold": job.fold,
            "models": [path.relative_to(home).as_posix() for path in models],
            "images": images,
            "left_out": left_out,
        }
        durable.write_json(beside / NOTE, note)
    progress.note(
        f"'{teacher.name}' labelled {images} test images by {len(models)} models that held the "
        f"fold out; {len(left_out)} are left out"
    )


def _predict(
    job: Job,
    teacher: Teacher,
    rows: Sequence[ImageRow],
    store: OofWriter,
    device: str,
    progress: Progress,
) -> dict[str, str]:
    """Fill a store; return why images are not in it, by name."""
    sizes = {row.image_id: (row.height, row.width) for row in rows}
    files = [(name, job.data / job.spec.test_images / name) for name in sizes]
    # What a rule never predicts may be taught all the same: only the gate has seen the image.
    rules = [replace(rule, empty=False) for rule in teacher.rules]
    settings, faults = Settings(device=device, keep_probs=True), dict[str, str]()
    for one in predict(teacher.members, rules, job.spec, files, settings=settings):
        if one.fault:
            faults[one.image_id] = one.fault
        else:
            size = sizes[one.image_id]
            store.add(one.image_id, said(job, one, rules, size), *size)
        progress.advance()
    return faults


def said(job: Job, one: Prediction, rules: Sequence[ClassRule], own: tuple[int, int]) -> Float:
    """Return probabilities (C, h, w) at the recipe's size, or (C,); 0 where the gate vetoes.

    `own` is the image's own (H, W).
    """
    if job.recipe["predicts"] == "label":
        assert one.labels is not None
        return one.labels
    size = pair(job.recipe["size"]) or own
    if one.masks is None:
        return np.zeros((len(rules), *size), np.float32)
    probs = np.where(vetoed(one.labels, rules)[:, None, None], np.float32(0), one.masks)
    if probs.shape[1:] == size:
        return probs
    # By areas, so that a thin defect keeps its share.
    area = cv2.INTER_AREA
    return np.stack([cv2.resize(one, (size[1], size[0]), interpolation=area) for one in probs])

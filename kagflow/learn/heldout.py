"""What a finished model says about its fold: the out-of-fold store, and its score."""

from __future__ import annotations

import shutil
import time
from collections.abc import Mapping
from dataclasses import replace

from kagflow.errors import DataError
from kagflow.infer.engine import Settings, load_member, predict_probs
from kagflow.infer.postprocess import ClassRule, apply, apply_labels
from kagflow.learn.job import FoldData, Job
from kagflow.learn.oof import OofReader, OofWriter
from kagflow.progress import Progress
from kagflow.task.rle import encode
from kagflow.task.score import Score, score_rows


def predict_fold(job: Job, data: FoldData, device: str, progress: Progress) -> float:
    """Write the store of best.safetensors as the kernel will see it; return seconds an image.

    Raises DataError for an image that cannot be read.
    """
    member, classes = job.member, data.cache.classes
    modules = load_member(member, classes, device)
    folder = job.run_dir / "oof"
    if folder.exists():
        # The run is not finished, so nobody has read a store that came before the kill.
        shutil.rmtree(folder)
    names = data.held_out
    files = [(name, job.data / job.spec.train_images / name) for name in names]
    settings = Settings(device=device)
    progress.start(f"predict fold {job.fold}", len(files), "images")
    start = time.monotonic()
    with OofWriter(folder, member.predicts, classes) as store:
        for found in predict_probs(member, modules, files, settings=settings, on_fault=_fail):
            store.add(found.image_id, found.probs, *found.size)
            progress.advance()
    progress.finish()
    return (time.monotonic() - start) / max(len(files), 1)


def score_fold(job: Job, data: FoldData) -> Score:
    """Score the store with the exact metric at default rules.

    A gate of a segmentation competition is judged by which classes it sees.
    """
    names = data.held_out
    with OofReader(job.run_dir / "oof") as store:
        if store.predicts == "mask":
            rows = {name: _masks(store, name) for name in names}
            return score_rows(rows, data.truth, job.spec, image_ids=names)
        rules = [ClassRule()] * data.cache.classes
        found = {
            name: apply_labels(store.label(name), rules, exclusive=job.spec.exclusive)
            for name in names
        }
    labels: Mapping[str, dict[int, str]] = {n: dict.fromkeys(at, "") for n, at in found.items()}
    spec = replace(job.spec, kind="classification")
    return score_rows(labels, data.truth, spec, image_ids=names)


def _masks(store: OofReader, name: str) -> dict[int, str]:
    probs = store.mask(name)
    masks = apply(probs, None, [ClassRule()] * len(probs))
    return {index: encode(mask) for index, mask in enumerate(masks) if mask.any()}


def _fail(image_id: str, what: str) -> None:
    raise DataError(f"{image_id}: {what}", hint="fetch the competition again")

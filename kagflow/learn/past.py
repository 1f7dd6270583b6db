"""What finished runs predicted out of fold about the images that a fold trains on.

A sampler whose target takes `past` is given one. The fold's own held-out images never show: a
store of the same fold is left alone, and so is everything in the others that is not trained on.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kagflow.errors import UsageError
from kagflow.infer.models import nearest
from kagflow.learn.cache import data_hash
from kagflow.learn.job import FoldData, Job
from kagflow.learn.oof import OofReader
from kagflow.learn.sampler import SAMPLERS, Sampler
from kagflow.naming import Fold
from kagflow.progress import QUIET, Progress
from kagflow.resolve import build, resolve, takes
from kagflow.task.folds import read_folds
from kagflow.task.spec import TaskSpec

Stores = dict[str, OofReader]


@dataclass(frozen=True)
class Past:
    """Open finished runs of the competition as the training part of `fold` may see them.

    `ids` are the images trained on, in the order of a sampler's `labels`; `truth` holds run
    lengths by image; `keep` is a folder for what a sampler works out, None where nothing is kept.
    """

    runs: Path
    data: Path
    spec: TaskSpec
    fold: Fold
    ids: tuple[str, ...]
    truth: Mapping[str, Mapping[int, str]]
    keep: Path | None = None
    progress: Progress = QUIET

    @classmethod
    def of(cls, job: Job, data: FoldData, progress: Progress) -> Past:
        """Take the training part of a fold."""
        ids = tuple(data.cache.ids[row] for row in data.train)
        runs = job.run_dir.parents[1]
        return cls(runs, job.data, job.spec, job.fold, ids, data.truth, job.run_dir, progress)

    def stores(self, run: str) -> Stores:
        """Return which store of a run holds each training image; images without one are left out.

        Raises UsageError where the run is not there or not finished, was trained on other data or
        folds, or says nothing about any image of this training part.
        """
        found = self._finished(run)
        folds = {name: fold for name, (_, fold) in read_folds(self.data / "folds.csv").items()}
        trained = set(self.ids)
        stores: Stores = {}
        for fold, folder in found.items():
            store = OofReader(folder / "oof")
            strangers = [name for name in store.image_ids if folds.get(name) != fold]
            if strangers:
                raise UsageError(
                    f"run '{run}' held out {strangers[0]} in fold {fold}, which is fold "
                    f"{folds.get(strangers[0])} now",
                    hint="the folds were cut anew since: train that run again under another name=",
                )
            stores |= dict.fromkeys(trained & set(store.image_ids), store)
        self.progress.note(
            f"{run} predicted {len(stores)} of these {len(trained)} training images out of fold"
        )
        return stores

    def _finished(self, run: str) -> dict[int, Path]:
        """Return the folder of each finished fold that holds out images trained on here."""
        folders = {
            fold: file.parent
            for file in sorted(self.runs.glob("*/fold*/run.json"))
            if file.parts[-3] == run
            for fold in [self._checked(run, json.loads(file.read_text()))]
        }
        if not folders:
            known = sorted({file.parts[-3] for file in self.runs.glob("*/fold*/run.json")})
            hint = nearest(run, known) if known else "there is none yet: kagflow train fold=all"
            raise UsageError(f"there is no finished run '{run}' to learn from", hint=hint)
        others = {fold: folder for fold, folder in folders.items() if fold != self.fold}
        if not others:
            raise UsageError(
                f"run '{run}' has finished fold {self.fold} alone, whose images this fold must "
                "not train on",
                hint=f"train other folds of '{run}' first: they hold out what this one trains on",
            )
        return others

    def _checked(self, run: str, facts: Mapping[str, Any]) -> int:
        if facts["data"] != data_hash(self.data):
            raise UsageError(
                f"run '{run}' fold {facts['fold']} was trained on other data than is here now",
                hint="train it again under another name=, or name a run of this data",
            )
        return int(facts["fold"])


def build_sampler(spec: Mapping[str, Any], past: Past) -> Sampler:
    """Build a recipe's sampler, with `past` where its target takes it."""
    extra = {"past": past} if takes(resolve(str(spec["target"]), SAMPLERS), "past") else {}
    sampler: Sampler = build(spec, SAMPLERS, **extra)
    return sampler

"""What came of a run: its run.json when it is finished, and what remains when it is not."""

from __future__ import annotations

import json
import resource
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from kagflow import durable
from kagflow.learn.cache import data_hash
from kagflow.learn.heldout import score_fold
from kagflow.learn.job import FoldData, Job
from kagflow.learn.state import State
from kagflow.naming import FULL


@dataclass(frozen=True)
class Remaining:
    """What a budget left undone: at `step` of `steps`, `epochs` to do, `seconds` estimated."""

    step: int
    steps: int
    epochs: float
    seconds: float


@dataclass(frozen=True)
class RunResult:
    """What a run is worth: `score` and `floor` on its fold's `images` at default rules.

    They are None for a run on everything, which no image can judge.
    `fresh` is False where the run was finished before and nothing was done; `resumed` is the
    step from which it went on, None from the start. `seconds` is training time. A run that its
    budget stopped has no score yet, and says what is `remaining`.
    """

    run_dir: Path
    score: float | None
    floor: float | None
    nonempty: float | None
    images: int
    seconds: float
    fresh: bool = True
    resumed: int | None = None
    remaining: Remaining | None = None

    def summary(self) -> dict[str, Any]:
        """Return plain JSON values."""
        plain = {"run_dir": str(self.run_dir), "finished": self.remaining is None}
        return asdict(self) | plain


def peak_memory(state: State) -> int:
    """Return the bytes of the device that the run took at most; on a CPU the process's."""
    reserved = [line["gpu_mib"] for line in state.history if "gpu_mib" in line]
    if reserved:
        return int(max(reserved) * 2**20)
    return 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def finish(job: Job, data: FoldData, state: State, told: Mapping[str, Any], *, device: str) -> None:
    """Score the fold and write run.json: from now on the run is finished."""
    score = None if job.fold == FULL else score_fold(job, data)
    manifest = json.loads((job.data / "manifest.json").read_text())
    durable.write_json(
        job.run_dir / "run.json",
        {
            "competition": job.run_dir.parents[1].name,
            "name": job.run_dir.parent.name,
            "fold": job.fold,
            "folds": data.folds,
            "predicts": job.recipe["predicts"],
            "recipe": dict(job.recipe),
            "finished": True,
            "steps": state.step,
            "processes": job.processes,
            "seconds": state.seconds,
            "time": state.time,
            "images": score.images if score else 0,
            "score": score.value if score else None,
            "floor": score.floor if score else None,
            "nonempty": score.nonempty if score else None,
            "per_class": list(score.per_class) if score else None,
            "data": data_hash(job.data),
            "profile": manifest.get("profile"),
            "device": device,
            "memory": peak_memory(state),
            **told,
        },
    )


def result(run_dir: Path, *, fresh: bool = True, resumed: int | None = None) -> RunResult:
    """Return what run.json says."""
    run = json.loads((run_dir / "run.json").read_text())
    keys = ("score", "floor", "nonempty", "images", "seconds")
    return RunResult(run_dir, **{key: run[key] for key in keys}, fresh=fresh, resumed=resumed)


def oof_line(run_dir: Path) -> str:
    """Say in one line what a finished fold's out-of-fold predictions are worth."""
    run = json.loads((run_dir / "run.json").read_text())
    where = "" if run["nonempty"] is None else f", {run['nonempty']:.4f} where something is true"
    each = " ".join(f"{value:.4f}" for value in run["per_class"])
    return (
        f"out of fold: {run['score']:.4f} on {run['images']} images (all-empty "
        f"{run['floor']:.4f}{where}); by class {each}"
    )


def paused(run_dir: Path, state: State, left: Remaining, *, resumed: int | None) -> RunResult:
    """Return what there is of a run that its budget stopped."""
    return RunResult(
        run_dir,
        score=None,
        floor=None,
        nonempty=None,
        images=0,
        seconds=state.seconds,
        resumed=resumed,
        remaining=left,
    )

"""What runs on Kaggle once the pack is verified and installed.

Strict on save: a failure removes submission.csv and is raised, so that nothing half-right can be
submitted. Forgiving in the rerun, whose log nobody sees and whose failure scores nothing: a valid
all-empty file comes first, better ones replace it, and a failure keeps the best.
"""

from __future__ import annotations

import json
import sys
import time
import traceback
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch

from kagflow.durable import write_json
from kagflow.errors import DataError
from kagflow.infer.engine import Settings, predict
from kagflow.infer.members import members_from_config
from kagflow.task.spec import TaskSpec
from kagflow.task.submission import Writer, expected_keys
from kagflow.task.table import read_table

SUBMISSION = "submission.csv"
REPORT = "kagflow-report.json"
MARKS = 10


@dataclass
class Report:
    """What a run did: counts, seconds on the wall clock, and what went wrong."""

    mode: str
    device: str
    images: int = 0
    predicted: int = 0
    nonempty: int = 0
    seconds: float = 0.0
    load_seconds: float = 0.0
    seconds_per_image: float | None = None
    faults: dict[str, str] = field(default_factory=dict)
    error: str = ""


def main(pack: Path, competition_input: Path, working: Path, *, rerun: bool) -> None:
    """Predict the competition's test images and write submission.csv and kagflow-report.json.

    Raises whatever went wrong on save; in a rerun returns with the best valid file in place.
    """
    config = json.loads((pack / "config.json").read_text(encoding="utf-8"))
    run(config, pack, competition_input, working, rerun=rerun)


def run(
    config: Mapping[str, Any], pack: Path, competition_input: Path, working: Path, *, rerun: bool
) -> Report:
    """Do what `main` does with the pack's config already read; return the report."""
    device = str(config.get("device") or ("cuda" if torch.cuda.is_available() else "cpu"))
    report = Report("rerun" if rerun else "save", device)
    submission = working / SUBMISSION
    try:
        _predict_all(config, pack, competition_input, submission, report)
    except Exception as error:
        report.error = f"{type(error).__name__}: {error}"
        print(traceback.format_exc(), file=sys.stderr, flush=True)
        if not rerun:
            submission.unlink(missing_ok=True)
            raise
        _say(f"failed, keeping what is written ({report.predicted} of {report.images} images)")
    finally:
        write_json(working / REPORT, asdict(report))
    return report


def find_images(folder: Path, image_ids: Iterator[str]) -> list[tuple[str, Path]]:
    """Pair image ids with files, by name or, where ids carry no suffix, by stem.

    A missing image keeps its place, since its row must still be written. Raises DataError where
    none is there.
    """
    files = sorted(folder.iterdir()) if folder.is_dir() else []
    named = {path.stem: path for path in files} | {path.name: path for path in files}
    pairs = [(image_id, named.get(image_id, folder / image_id)) for image_id in image_ids]
    if pairs and not any(image_id in named for image_id, _ in pairs):
        raise DataError(
            f"{folder} holds none of the {len(pairs)} images of the sample submission",
            hint="check test_images and image_column in competition.yaml",
        )
    return pairs


def _predict_all(
    config: Mapping[str, Any],
    pack: Path,
    competition_input: Path,
    submission: Path,
    report: Report,
) -> None:
    """Fill `report` and the submission; what is predicted before a failure in a rerun is kept."""
    began = time.perf_counter()
    spec = TaskSpec.from_dict(config["task"])
    writer = Writer(submission, spec, competition_input / spec.sample_submission)
    rerun = report.mode == "rerun"
    if rerun:
        writer.close()
    try:
        for done in _predictions(config, pack, competition_input, writer, report):
            report.predicted = done
            report.seconds = round(time.perf_counter() - began, 3)
            if done == 1:
                report.load_seconds = report.seconds
            if _is_mark(done, report.images):
                _say(f"{done} of {report.images} images, {report.seconds:.1f} s")
                if rerun:
                    writer.close()
    finally:
        if report.predicted:
            report.seconds_per_image = round(report.seconds / report.predicted, 5)
        if rerun:
            writer.close()
    if not rerun:
        writer.close()


def _predictions(
    config: Mapping[str, Any],
    pack: Path,
    competition_input: Path,
    writer: Writer,
    report: Report,
) -> Iterator[int]:
    """Predict into the writer; yield the number of images that are done."""
    members, rules, spec = members_from_config(config, pack)
    sample = read_table(competition_input / spec.sample_submission)
    ids = dict.fromkeys(image_id for image_id, _ in expected_keys(sample, spec))
    files = find_images(competition_input / spec.test_images, iter(ids))
    report.images = len(files)
    settings = Settings(
        device=report.device,
        batch=int(config.get("batch") or 8),
        precision=str(config.get("precision") or "auto"),
    )
    _say(f"{len(files)} images, {len(members)} members on {report.device}, {report.mode} mode")
    found = predict(members, rules, spec, files, settings=settings)
    for done, prediction in enumerate(found, 1):
        writer.add(prediction.image_id, prediction.rows)
        report.nonempty += bool(prediction.rows)
        if prediction.fault:
            report.faults[prediction.image_id] = prediction.fault
            _say(f"{prediction.image_id}: empty row, {prediction.fault}")
        yield done


def _is_mark(done: int, total: int) -> bool:
    """Tell whether a tenth of the images was just completed."""
    return done * MARKS // total > (done - 1) * MARKS // total


def _say(text: str) -> None:
    print(f"kagflow: {text}", flush=True)

"""What runs on Kaggle once the pack is verified and installed.

Strict on save: a failure removes submission.csv and is raised, so that nothing half-right can be
submitted. Forgiving in the rerun, whose log nobody sees and whose failure scores nothing: a valid
all-empty file comes first, better ones replace it, a member that fails is left out, and a failure
of all keeps the best file. In both a governor sees to it that the images are done in time.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
import time
import traceback
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import nn

from kagflow.durable import write_json
from kagflow.errors import DataError
from kagflow.infer import devices, memory, parity
from kagflow.infer.backend import Backend
from kagflow.infer.engine import Settings, predict
from kagflow.infer.governor import SHARE, Governor, Order, order, plans
from kagflow.infer.members import Member, members_from_config
from kagflow.infer.meter import Meter
from kagflow.task.costs import LINE
from kagflow.task.spec import TaskSpec
from kagflow.task.submission import Writer, expected_keys
from kagflow.task.table import read_table

SUBMISSION = "submission.csv"
REPORT = "kagflow-report.json"
MARKS = 10
# So many images prove a save whose output Kaggle does not score.
PROOF = 16


@dataclass
class Report:
    """What a run did: counts, seconds on the wall clock, what was shed and what went wrong.

    `shed` counts images by the views that each segmenter still gave ("2+1+0"), `late` those that
    nobody had time for; `lost` are members that were left out; `skipped` images of a save whose
    rerun will predict them. `backend` says what runs each member, and why; `costs` (task.costs)
    are what each stage took.
    """

    mode: str
    device: str = ""
    images: int = 0
    predicted: int = 0
    nonempty: int = 0
    skipped: int = 0
    late: int = 0
    seconds: float = 0.0
    load_seconds: float = 0.0
    seconds_per_image: float | None = None
    parity: list[str] = field(default_factory=list)
    backend: list[str] = field(default_factory=list)
    shed: dict[str, int] = field(default_factory=dict)
    lost: dict[str, str] = field(default_factory=dict)
    faults: dict[str, str] = field(default_factory=dict)
    costs: dict[str, Any] | None = None
    error: str = ""


def main(
    pack: Path, competition_input: Path, working: Path, *, rerun: bool, boot: float | None = None
) -> None:
    """Predict the competition's test images and write submission.csv and kagflow-report.json.

    `boot` is the time.monotonic() at which the container started, now where it is not known.
    Raises whatever went wrong on save; in a rerun returns with the best valid file in place.
    """
    # Before there are threads.
    memory.keep()
    config = json.loads((pack / "config.json").read_text(encoding="utf-8"))
    began = time.monotonic() if boot is None else boot
    Run(config, pack, competition_input, working, rerun=rerun, boot=began).all()


class Run:
    """A run under way."""

    def __init__(
        self,
        config: Mapping[str, Any],
        pack: Path,
        competition_input: Path,
        working: Path,
        *,
        rerun: bool,
        boot: float,
    ) -> None:
        self.config, self.pack, self.input, self.working = config, pack, competition_input, working
        self.rerun, self.boot = rerun, boot
        self.report = Report("rerun" if rerun else "save")
        self.meter, self._parity_images = Meter(), 0

    def all(self) -> Report:
        """Predict everything; return the report, which is written too."""
        submission = self.working / SUBMISSION
        try:
            self._predict(submission)
        except Exception as error:
            self.report.error = f"{type(error).__name__}: {error}"
            print(traceback.format_exc(), file=sys.stderr, flush=True)
            if not self.rerun:
                submission.unlink(missing_ok=True)
                raise
            done, total = self.report.predicted, self.report.images
            _say(f"failed, keeping what is written ({done} of {total} images)")
        finally:
            write_json(self.working / REPORT, asdict(self.report))
        return self.report

    def _predict(self, submission: Path) -> None:
        """Fill report and submission; what is predicted before a failure in a rerun is kept."""
        began, report = time.perf_counter(), self.report
        spec = TaskSpec.from_dict(self.config["task"])
        writer = Writer(submission, spec, self.input / spec.sample_submission)
        if self.rerun:
            writer.close()
        try:
            for done in self._predictions(writer):
                report.predicted = done
                report.seconds = round(time.perf_counter() - began, 3)
                if done == 1:
                    report.load_seconds = report.seconds
                if _is_mark(done, report.images):
                    _say(f"{done} of {report.images} images, {report.seconds:.1f} s")
                    if self.rerun:
                        writer.close()
        finally:
            if report.predicted:
                report.seconds_per_image = round(report.seconds / report.predicted, 5)
            if self.rerun:
                writer.close()
        if not self.rerun:
            writer.close()

    def _predictions(self, writer: Writer) -> Iterator[int]:
        """Predict into the writer; yield the number of images that are done."""
        report = self.report
        members, rules, spec = members_from_config(self.config, self.pack)
        report.device = devices.choose(self.config.get("device"), forgiving=self.rerun)
        files = self._files(spec)
        members, shed = self._order(members, spec)
        governor = self._governor(members, len(files), shed)
        settings = self._settings(governor)
        _say(f"{len(files)} images, {len(members)} members on {report.device}, {report.mode} mode")
        for done, found in enumerate(predict(members, rules, spec, files, settings=settings), 1):
            writer.add(found.image_id, found.rows)
            report.nonempty += bool(found.rows)
            report.late += found.late
            if found.fault:
                report.faults[found.image_id] = found.fault
                _say(f"{found.image_id}: empty row, {found.fault}")
            yield done
        self._tell_costs(members, len(files))
        report.shed = dict(governor.story())
        if report.shed or report.late:
            _say(f"time was short: shed {report.shed}, {report.late} images left empty")

    def _files(self, spec: TaskSpec) -> list[tuple[str, Path]]:
        """Return (id, file) of the images to predict: a few on a save that is not scored."""
        sample = read_table(self.input / spec.sample_submission)
        ids = dict.fromkeys(image_id for image_id, _ in expected_keys(sample, spec))
        files = find_images(self.input / spec.test_images, iter(ids))
        self.report.images = len(files)
        if not self.rerun and self.config.get("rerun") == "hidden":
            self.report.skipped = max(len(files) - PROOF, 0)
            files = files[:PROOF]
        return files

    def _order(self, members: Sequence[Member], spec: TaskSpec) -> tuple[list[Member], Order]:
        """Sort members by worth per second; say in which order they are given up."""
        needed = "mask" if spec.kind == "segmentation" else "label"
        judged = [one for one in members if one.predicts == needed]
        gates = [one for one in members if one.predicts != needed]
        names, others = [one.name for one in judged], [one.name for one in gates]
        found = order(self.config.get("shedding") or [], names, others)
        return [judged[at] for at in found.best] + gates, found

    def _governor(self, members: Sequence[Member], images: int, shed: Order) -> Governor:
        """Return what keeps the run within its share of the competition's limit."""
        count = len(shed.best)
        limits = self.config.get("limits") or {}
        minutes = float(limits.get("inference_minutes") or "inf")
        return Governor(
            images,
            self.boot + SHARE * 60 * minutes,
            plans([len(member.tta) for member in members[:count]], shed.shed),
            lanes=len(self.report.device.split(",")),
            priors=[one.seconds / len(one.tta) for one in members[:count]],
            gate_prior=sum(one.seconds for one in members[count:]),
        )

    def _settings(self, governor: Governor) -> Settings:
        return Settings(
            device=self.report.device,
            batch=int(self.config.get("batch") or 8),
            precision=str(self.config.get("precision") or "auto"),
            governor=governor,
            meter=self.meter,
            backend=self._backend(),
            on_load=self._check_parity,
            on_loss=self._lose if self.rerun else None,
        )

    def _backend(self) -> Backend | None:
        """Return what may run members faster on the CPU, where the competition asks for it."""
        wanted = str(self.config.get("backend") or "torch")
        # A damaged file is told where members are loaded, which a rerun may live through.
        with contextlib.suppress(DataError):
            stored = None if wanted == "torch" else parity.read(self.pack, 1)
            if stored is not None:
                return self._backend_by(parity.pictures(stored.stored, 1)[0][1], wanted)
        return None

    def _backend_by(self, sample: NDArray[np.uint8], wanted: str) -> Backend:
        # A save that only proves the rerun must choose as the rerun does.
        hidden = (self.config.get("limits") or {}).get("hidden_images") or 0
        images = max(self.report.images, int(hidden))
        return Backend(sample, images, forced=wanted != "auto", say=self._tell_backend)

    def _tell_backend(self, said: str) -> None:
        self.report.backend.append(said)
        _say(said)

    def _check_parity(self, member: Member, modules: Sequence[nn.Module], device: str) -> None:
        """Compare a loaded member with its stored answers; a rehearsal may look at fewer."""
        count = int(os.environ.get("KAGFLOW_PARITY") or parity.IMAGES)
        began, stored = time.monotonic(), parity.read(self.pack, count)
        if stored is None:
            return
        half = device.startswith("cuda") and self.config.get("precision") != "fp32"
        said = stored.check(member, modules, device, half=half)
        self.report.parity.append(said)
        self._parity_images = count
        self.meter.parity += time.monotonic() - began
        _say(said)

    def _tell_costs(self, members: Sequence[Member], images: int) -> None:
        """Say what it took in a line that a program finds again, wherever only the log is left."""
        found = self.meter.costs(members, self.report.device, images=images, boot=self.boot)
        self.report.costs = replace(found, parity_images=self._parity_images).to_dict()
        print(f"{LINE}{json.dumps(self.report.costs)}", flush=True)

    def _lose(self, name: str, error: Exception) -> None:
        self.report.lost[name] = f"{type(error).__name__}: {error}"
        _say(f"going on without {name}: {error}")


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


def _is_mark(done: int, total: int) -> bool:
    """Tell whether a tenth of the images was just completed."""
    return done * MARKS // total > (done - 1) * MARKS // total


def _say(text: str) -> None:
    print(f"kagflow: {text}", flush=True)

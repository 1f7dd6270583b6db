"""Look at a recipe on real images: sixteen samples, one step on the CPU, a contact sheet."""

from __future__ import annotations

import tempfile
import time
from dataclasses import dataclass, replace
from pathlib import Path

from torch import nn

from kagflow import durable
from kagflow.errors import KagflowError
from kagflow.frames import own_lines
from kagflow.infer.image import INPUTS
from kagflow.learn import checkpoint
from kagflow.learn.assets import make_assets
from kagflow.learn.augment import AUGMENTS
from kagflow.learn.dataset import Steps
from kagflow.learn.job import Job, pair
from kagflow.learn.look_data import SAMPLES, Scene, open_scene
from kagflow.learn.look_model import Pass, try_step
from kagflow.learn.look_samples import Walk, sizes
from kagflow.learn.look_steps import Ledger, Step
from kagflow.learn.losses import LOSSES
from kagflow.learn.pretrained import start_model
from kagflow.learn.sampler import Draw
from kagflow.learn.sheet import draw_sheet
from kagflow.progress import Progress
from kagflow.resolve import Fault, build


@dataclass(frozen=True)
class Seen:
    """What a look saw: `samples` name image, draw and classes; `sheet` is where the PNG lies.

    The sheet is None where no sample came through; `seconds` is the whole look's time.
    """

    samples: tuple[tuple[str, Draw, tuple[int, ...]], ...]
    steps: tuple[Step, ...]
    step: Pass
    notes: tuple[str, ...]
    faults: tuple[Fault, ...]
    sheet: Path | None
    seconds: float


def look(job: Job, runs: Path, sheet: Path, progress: Progress) -> Seen:
    """Take a fold's first samples through a recipe, and a step of its model; write the sheet.

    `runs` is where finished runs lie; `job.run_dir` is not written to. The recipe has been checked
    before. Raises KagflowError where the data cannot be read.
    """
    began = time.monotonic()
    checkpoint.seed_all(job.recipe["seed"])
    with tempfile.TemporaryDirectory() as scratch:
        moved = replace(job, run_dir=Path(scratch) / job.run_dir.parent.name / "look")
        scene = open_scene(moved, runs, Path(scratch) / "images", progress)
        return _Look(moved, scene, sheet, progress).see(began)


class _Look:
    """A look under way."""

    def __init__(self, job: Job, scene: Scene, sheet: Path, progress: Progress) -> None:
        self.job, self.scene, self.progress = job, scene, progress
        self.recipe = job.recipe
        self.ledger = Ledger(job.spec.classes)
        self.sheet = sheet
        self.notes = _choice(scene)
        self.faults: list[Fault] = []
        self.walk: Walk | None = None

    def see(self, began: float) -> Seen:
        """Walk the samples, draw the sheet, try the step."""
        if self.assets():
            self.walk = Walk(self.scene, self.steps(), self.ledger)
            self.faults += self.walk.all(self.progress)
        drawn = self.draw()
        done = self.step() if not self.faults else Pass()
        views = self.walk.views if self.walk else []
        return Seen(
            tuple((one.image_id, one.draw, one.label) for one in views),
            self.ledger.steps(),
            done,
            (*self.notes, *done.notes),
            (*self.faults, *done.faults),
            self.sheet if drawn else None,
            time.monotonic() - began,
        )

    def assets(self) -> bool:
        """Make the recipe's assets of a few images; False where their code raises."""
        assets = self.recipe["assets"]
        try:
            make_assets(assets, self.scene.images, self.job.run_dir / "assets", self.progress)
        except KagflowError as error:
            self.faults.append(Fault("assets", error.message, error.hint))
        except Exception as error:  # noqa: BLE001 - a plug-in may raise anything
            what = f"making the assets raised {type(error).__name__}: {error}"
            self.faults.append(Fault("assets", what, "mend the lines shown", own_lines(error)))
        if assets and not self.faults:
            self.notes.append(f"assets are made of {len(self.scene.images)} images here")
        return not self.faults

    def steps(self) -> Steps:
        """Build what training builds."""
        return Steps(
            crop=pair(self.recipe["crop"]),
            compose=build(self.recipe["augment"], AUGMENTS),
            make_input=build(self.recipe["input"], INPUTS),
            masks=self.recipe["predicts"] == "mask",
            assets=self.job.member.assets,
        )

    def draw(self) -> bool:
        """Write the sheet of the samples that came through."""
        if self.walk is None or not self.walk.views:
            return False
        if changed := sizes(self.walk.views):
            self.notes.append(
                f"the augmentation changes the size, {changed}: the kernel predicts at the other "
                "one; `size` or `crop` in the recipe changes both"
            )
        title = f"{self.job.label}: {len(self.walk.views)} samples of the first epoch"
        durable.write_bytes(self.sheet, draw_sheet(self.walk.views, self.job.spec.classes, title))
        return True

    def step(self) -> Pass:
        """Show the model as many samples as make a batch."""
        assert self.walk is not None
        made = self.walk.made[: min(max(self.recipe["batch"], 2), SAMPLES)]
        shapes = {tuple(one["image"].shape) for one in made}
        if len(shapes) > 1:
            what = f"the samples differ in shape, {' and '.join(map(str, sorted(shapes)[:3]))}"
            mend = "set size or crop to [height, width] in the recipe, or batch=1"
            if self.recipe["batch"] > 1:
                return Pass(faults=[Fault("crop", f"{what}: they make no batch", mend)])
            made = [one for one in made if one["image"].shape == made[0]["image"].shape]
        self.progress.start("one step")
        try:
            loss = build(self.recipe["loss"], LOSSES)
            return try_step(self.model(), loss, made, self.recipe["predicts"], self.ledger)
        finally:
            self.progress.finish()

    def model(self) -> nn.Module:
        """Build the model; weights that would come from a hub stay random."""
        weights = self.recipe["weights"]
        if weights == "imagenet":
            self.notes.append("the model's weights are random here, not imagenet's")
            weights = "none"
        classes = self.scene.cache.classes
        return start_model(self.recipe["model"], classes=classes, weights=weights)


def _choice(scene: Scene) -> list[str]:
    first = f"the first {len(scene.draws)} draws of the first epoch"
    if not scene.later:
        return [first]
    return [f"{first}, {scene.later} clean ones changed for later draws that show a defect"]

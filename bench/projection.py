"""How near a projection comes to the real rerun of a recipe that the other machine never saw.

Kaggle's machine is this one with a torch of a single thread, the rehearsal's with all of them; the
kernel is the one that a pack runs, on packs of untrained weights. One recipe calibrates, the saved
run of 16 images there beside the rehearsal of 24 here; each of the others is rehearsed here,
projected, and really run there. Prints a line for each; ends with 1 where one is off by over 15 %.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from kagflow.infer.export import save_weights
from kagflow.infer.models import build_model
from kagflow.rehearse.projection import project
from kagflow.task.costs import Costs, Pair
from kagflow.task.spec import TaskSpec

SAVED, REHEARSED = 16, 24
HIDDEN = int(os.environ.get("KAGFLOW_BENCH_HIDDEN", "96"))
GOAL = 0.15
TASK = TaskSpec("frames", "segmentation", ("1", "2", "3", "4"), 256, 1600)
RUN = (
    "import sys, time; start = time.monotonic(); from pathlib import Path; "
    "from kagflow.infer.kernel import main; pack, data, out, rerun = sys.argv[1:]; "
    "main(Path(pack), Path(data), Path(out), rerun=rerun == 'yes', boot=start)"
)


@dataclass(frozen=True)
class Recipe:
    """A member of an ensemble: an smp model, its size and its views."""

    arch: str
    encoder: str
    size: tuple[int, int]
    tta: tuple[str, ...] = ("none",)

    def entry(self, weights: str) -> dict[str, Any]:
        """Return the member as a pack's config.json has it."""
        kwargs = {"arch": self.arch, "encoder": self.encoder}
        return {
            "name": self.encoder, "predicts": "mask", "weights": [weights], "size": self.size,
            "tta": self.tta, "model": {"target": "smp", "kwargs": kwargs},
            "input": {"target": "grey", "kwargs": {"mean": 0.5, "std": 0.5}},
        }  # fmt: skip


CALIBRATING = Recipe("FPN", "tu-tf_efficientnet_lite0", (128, 800))
UNSEEN = (
    Recipe("FPN", "resnet18", (128, 800)),
    Recipe("Unet", "tu-mobilenetv3_small_050", (128, 800), ("none", "hflip")),
    Recipe("Unet", "resnet34", (96, 608)),
)


def data(folder: Path, images: int) -> Path:
    """Write a competition of made-up frames."""
    (folder / "test_images").mkdir(parents=True)
    rng, rows = np.random.default_rng(0), ["ImageId,ClassId,EncodedPixels"]
    for number in range(images):
        frame = cv2.GaussianBlur(rng.integers(0, 255, (256, 1600), np.uint8), (0, 0), 2)
        cv2.imwrite(str(folder / "test_images" / f"{number}.jpg"), frame)
        rows += [f"{number}.jpg,{label},1 1" for label in TASK.classes]
    (folder / "sample_submission.csv").write_text("\n".join(rows) + "\n")
    return folder


def pack(folder: Path, recipe: Recipe) -> Path:
    """Write untrained weights and the config of a pack."""
    folder.mkdir()
    entry = recipe.entry("weights.safetensors")
    model = build_model(entry["model"], classes=len(TASK.classes))
    save_weights(model, folder / "weights.safetensors")
    rule = {"threshold": 0.6, "min_area": 100}
    config = {"schema": 1, "task": TASK.to_dict(), "members": [entry], "rules": [rule] * 4}
    (folder / "config.json").write_text(json.dumps({**config, "batch": 4, "rerun": "hidden"}))
    return folder


def run(made: Path, frames: Path, *, threads: int, rerun: bool) -> Costs:
    """Run the kernel in a process of its own; return what it told."""
    with tempfile.TemporaryDirectory() as out:
        environment = {**os.environ, "OMP_NUM_THREADS": str(threads)}
        words = [str(made), str(frames), out, "yes" if rerun else "no"]
        subprocess.run(
            [sys.executable, "-c", RUN, *words], check=True, env=environment, capture_output=True
        )
        told = json.loads((Path(out) / "kagflow-report.json").read_text())
    return Costs.from_dict(told["costs"])


def measure() -> tuple[list[str], float]:
    """Calibrate, project, run; return a line for each recipe and the largest error."""
    cores, lines, off = os.cpu_count() or 2, [], []
    with tempfile.TemporaryDirectory() as name:
        home = Path(name)
        few, many = data(home / "few", REHEARSED), data(home / "many", HIDDEN)
        first = pack(home / "first", CALIBRATING)
        here = run(first, few, threads=cores, rerun=True)
        there = run(first, few, threads=1, rerun=False)
        pair = Pair("one thread", "now", "kernel", "bench/1", there, here)
        for number, recipe in enumerate(UNSEEN):
            made = pack(home / str(number), recipe)
            found = project(run(made, few, threads=cores, rerun=True), [pair], HIDDEN)
            real = run(made, many, threads=1, rerun=True).total / 60
            off.append(found.minutes / real - 1)
            lines.append(
                f"{recipe.arch} on {recipe.encoder} at {recipe.size[0]}x{recipe.size[1]}, "
                f"{HIDDEN} images on the other machine: projected {60 * found.minutes:.1f} s "
                f"(P95 {60 * (found.p95 or 0):.1f}), real {60 * real:.1f} s, {off[-1]:+.1%}."
            )
    return lines, max(map(abs, off))


def main() -> int:
    """Print the errors."""
    lines, worst = measure()
    print(*lines, f"worst {worst:.1%}, goal {GOAL:.0%}", sep="\n")
    return int(worst > GOAL)


if __name__ == "__main__":
    sys.exit(main())

"""One training of the comparison, in a process of its own, on one thread; finished ones stay.

`python quality_train.py WORKSPACE NAME ARM SEED` writes `quality/<label>/` in the workspace:
train.json (CPU seconds, images seen, the command's values), the weights, and out-of-fold stores.
"""

from __future__ import annotations

import argparse
import json
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import plain_smp
import torch
import yaml
from plain_smp import Script
from safetensors.torch import load_file, save_file

from kagflow import durable
from kagflow.config import Recipe, load_competition, load_recipe
from kagflow.infer.engine import Settings, load_member, predict_probs
from kagflow.learn import job as jobs
from kagflow.learn.oof import OofWriter
from kagflow.learn.train import train as train_job
from kagflow.task.folds import read_folds
from kagflow.task.labels import read_labels
from kagflow.task.spec import TaskSpec
from kagflow.workspace import find

FOLD = 0
# CPU seconds that one training of either arm is meant to take on a quiet core.
SECONDS = 180


@dataclass(frozen=True)
class Arena:
    """One data set: what both arms share, and how many images each sees in `SECONDS`.

    The counts come from timing some steps of both arms on a quiet core. A clock would not do: on
    a machine shared with others the same step takes up to half as long again, and no training
    could be repeated. Rows show the CPU seconds that each arm took in fact.
    """

    name: str
    data: str
    size: tuple[int, int]
    batch: int
    images: int
    plain_images: int
    rates: tuple[float, float] = (1e-3, 3e-3)


ARENAS = {
    "magnetic_tile": Arena("magnetic_tile", "magnetic-tile", (224, 192), 8, 2900, 2176),
    "neu_steel": Arena("neu_steel", "neu-steel", (160, 160), 16, 5900, 4300),
}
ENCODER = "tu-tf_efficientnet_lite0"
WIDTHS = {"decoder_pyramid_channels": 64, "decoder_segmentation_channels": 32}


@dataclass(frozen=True)
class Place:
    """Where a data set's workspace keeps what is needed here."""

    root: Path
    arena: Arena

    @property
    def data(self) -> Path:
        """What fetch wrote."""
        return find(self.root, "local").data(self.arena.name)

    @property
    def hidden(self) -> Path:
        """The embedded Kaggle's own folder of the competition."""
        return self.root / ".kagflow/local/kaggle/competitions" / self.arena.data

    @property
    def spec(self) -> TaskSpec:
        """What the competition is."""
        return load_competition(self.root / "competitions" / self.arena.name).task()

    def files(self, *, held_out: bool) -> list[Path]:
        """List the images of the fold, or those outside it."""
        folds = read_folds(self.data / "folds.csv")
        names = sorted(name for name, (_, fold) in folds.items() if (fold == FOLD) == held_out)
        return [self.data / self.spec.train_images / name for name in names]

    def hidden_files(self) -> list[Path]:
        """List the images of the hidden part."""
        return sorted((self.hidden / "hidden" / self.spec.test_images).iterdir())


def plain_label(lr: float, seed: int) -> str:
    """Name a training of the plain script."""
    return f"plain-lr={lr:g}-seed={seed}"


def plain_script(arena: Arena, classes: int, lr: float, seed: int) -> Script:
    """Return the script that the other arm is."""
    model = {"encoder_name": ENCODER, **WIDTHS}
    return Script("FPN", model, classes, arena.size, arena.batch, lr, seed, arena.plain_images)


def default_recipe(arena: Arena, seed: int, train_images: int) -> Recipe:
    """Return kagflow's defaults with what both arms share, for `arena.images` in whole epochs."""
    epochs = max(1, round(arena.images / train_images))
    return Recipe.model_validate(
        {
            "model": {"target": "smp", "kwargs": {"arch": "FPN", "encoder": ENCODER, **WIDTHS}},
            "weights": "packaged",
            "size": arena.size,
            "batch": arena.batch,
            "epochs": epochs,
            "samples": arena.images // epochs,
            "seed": seed,
        }
    )


def train_plain(place: Place, lr: float, seed: int) -> Path:
    """Train the script unless that is done; its stores are `oof` (one view) and `oof-flip`."""
    folder = place.root / "quality" / plain_label(lr, seed)
    if (folder / "train.json").is_file():
        return folder
    folder.mkdir(parents=True, exist_ok=True)
    script = plain_script(place.arena, len(place.spec.classes), lr, seed)
    durable.write_json(folder / "script.json", asdict(script))
    truth = read_labels(place.data / place.spec.train_csv, place.spec)
    model, told = plain_smp.train(script, place.files(held_out=False), truth)
    save_file({k: v.contiguous() for k, v in model.state_dict().items()}, folder / "w.safetensors")
    predict_plain(folder, place.files(held_out=True), "oof")
    durable.write_json(folder / "train.json", told)
    return folder


def predict_plain(folder: Path, files: list[Path], name: str) -> None:
    """Write the stores `name` and `name-flip` of the script's weights."""
    script = Script(**json.loads((folder / "script.json").read_text()))
    model = plain_smp.build(script)
    model.load_state_dict(load_file(folder / "w.safetensors"))
    for flip in (False, True):
        store = folder / (name + "-flip" * flip)
        if store.exists():
            continue
        with OofWriter(store, "mask", script.classes) as out:
            for image, probs, size in plain_smp.predict(model, script, files, flip=flip):
                out.add(image, probs, *size)


def train_ours(place: Place, label: str, recipe: Recipe) -> Path:
    """Train a recipe with kagflow's own trainer unless that is done."""
    folder = place.root / ".kagflow/local/runs" / place.arena.name / label / f"fold{FOLD}"
    note = folder / "train.json"
    if note.is_file():
        return folder
    job = jobs.Job(
        folder, recipe.model_dump(mode="json"), place.spec, place.data, FOLD, "cpu", force=True
    )
    began, ends = time.process_time(), []
    train_job(job, on_epoch=lambda _line: ends.append(time.process_time() - began))
    seen = (recipe.samples or len(place.files(held_out=False))) * recipe.epochs
    durable.write_json(note, {"cpu_seconds": ends[-1] if ends else None, "images_seen": seen})
    return folder


def predict_ours(
    place: Place, folder: Path, files: list[Path], name: str, views: tuple[str, ...] = ()
) -> None:
    """Write a store of a finished run on other images, with its own views or others."""
    store = folder / name
    if store.exists():
        return
    config = yaml.safe_load((folder / "config.yaml").read_text())
    member = jobs.Job(folder, config["recipe"], place.spec, place.data, FOLD, "cpu").member
    member = replace(member, tta=views or member.tta)
    modules = load_member(member, len(place.spec.classes), "cpu")
    sources = [(path.name, path) for path in files]
    with OofWriter(store, member.predicts, len(place.spec.classes)) as out:
        for found in predict_probs(member, modules, sources, settings=Settings(device="cpu")):
            out.add(found.image_id, np.asarray(found.probs, np.float32), *found.size)


def main() -> None:
    """Do one training."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("workspace", type=Path)
    parser.add_argument("name", choices=sorted(ARENAS))
    parser.add_argument("arm", help="plain:LR, ours:LABEL or recipe:NAME")
    parser.add_argument("seed", type=int)
    parser.add_argument("overrides", nargs="*")
    given = parser.parse_args()
    torch.set_num_threads(1)
    place = Place(given.workspace.resolve(), ARENAS[given.name])
    kind, _, word = given.arm.partition(":")
    if kind == "plain":
        folder = train_plain(place, float(word), given.seed)
    elif kind == "recipe":
        path = place.root / "competitions" / given.name / "recipes" / f"{word}.yaml"
        folder = train_ours(place, word, load_recipe(path, given.overrides))
    else:
        folder = train_ours(place, f"{word}-seed={given.seed}", _overridden(place, given))
    told: dict[str, Any] = json.loads((folder / "train.json").read_text())
    print(folder.name, {key: told[key] for key in ("cpu_seconds", "images_seen")})


def _overridden(place: Place, given: argparse.Namespace) -> Recipe:
    recipe = default_recipe(place.arena, given.seed, len(place.files(held_out=False)))
    path = place.root / "quality" / f"{given.arm}-{given.seed}.yaml"
    durable.write_text(path, yaml.safe_dump(recipe.model_dump(mode="json")))
    return load_recipe(path, given.overrides)


if __name__ == "__main__":
    main()

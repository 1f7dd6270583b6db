"""A small workspace as trainings leave it, without training anything."""

from __future__ import annotations

import json
import shutil

import cv2
import numpy as np
import pytest

from kagflow import durable
from kagflow.learn import ensemble, perimage
from kagflow.learn.oof import OofWriter
from kagflow.report.collect import Collector
from kagflow.report.facts import Limits, Place
from kagflow.task import rle
from kagflow.task.folds import write_folds
from kagflow.task.spec import TaskSpec
from kagflow.task.table import write_table

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
SUBMISSION = {
    "ref": 1, "intent_at": "2026-01-02T03:04:05", "ensemble": "default", "cv_naive": 0.93,
    "cv_crossfitted": 0.92, "public": 0.9, "private": 0.91, "real_minutes": 3.2,
    "status": "scored", "error": None,
}  # fmt: skip
HOURS = [
    {"kind": "train", "subject": "one/fold0", "place": "local", "seconds": 5400.0, "ended": "x"},
    {"kind": "kernel", "subject": "u/k/v1", "place": "kaggle", "seconds": 600.0, "ended": "x"},
    {"kind": "train", "subject": "one/fold0", "place": "local", "seconds": None, "ended": None},
]  # fmt: skip


class House:
    """A workspace of `images` pictures whose sizes vary; truth is drawn, runs are noise on it."""

    def __init__(
        self, root, *, classes=("1", "2", "3"), kind="segmentation", images=24, names=None
    ):
        self.root, self.data = root, root / "data" / "tiles"
        self.spec = TaskSpec("tiles", kind, tuple(classes))
        self.names = names or [f"img{number:02}.png" for number in range(images)]
        self.rng = np.random.default_rng(0)
        self.sizes, self.truth = {}, {}
        for number, name in enumerate(self.names):
            self._image(number, name)
        durable.write_json(self.data / "manifest.json", {"profile": "kaggle", "files": {}})
        places = {name: (number // 2, number // 2 % 2) for number, name in enumerate(self.names)}
        write_folds(self.data / "folds.csv", places)
        self.places = places
        self._labels()

    def _image(self, number, name):
        height, width = (40, 60) if number % 3 else (50, 44)
        self.sizes[name] = (height, width)
        image = self.rng.integers(60, 120, (height, width)).astype(np.uint8)
        shown = [
            c for c in range(len(self.spec.classes)) if self.rng.random() < 0.4 / (c + 1) + 0.1
        ]
        self.truth[name] = {}
        for c in shown:
            mask = np.zeros((height, width), np.uint8)
            top, left = self.rng.integers(2, 20, 2)
            mask[top : top + 14, left : left + 18] = 1
            image[mask > 0] = 200 - 20 * c
            self.truth[name][c] = rle.encode(mask) if self.spec.kind == "segmentation" else ""
        path = self.data / "train_images" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(cv2.imencode(".png", image)[1].tobytes())

    def _labels(self):
        spec = self.spec
        if spec.kind == "classification":
            rows = [[n, " ".join(spec.classes[c] for c in f)] for n, f in self.truth.items()]
            write_table(self.data / spec.train_csv, ["ImageId", "EncodedPixels"], rows)
            return
        rows = [[n, spec.classes[c], text] for n, f in self.truth.items() for c, text in f.items()]
        write_table(self.data / spec.train_csv, ["ImageId", "ClassId", "EncodedPixels"], rows)

    def run(self, name, folds=(0, 1), predicts="mask", noise=0.3):
        for fold in folds:
            self._fold(name, fold, predicts, noise)
        return self

    def _fold(self, name, fold, predicts, noise):
        folder = self.root / "runs" / "tiles" / name / f"fold{fold}"
        rng = np.random.default_rng([fold, len(name), ord(name[-1])])
        held = [image for image in self.names if self.places[image][1] == fold]
        with OofWriter(folder / "oof", predicts, len(self.spec.classes)) as store:
            for image in held:
                store.add(image, self._probs(rng, image, predicts, noise), *self.sizes[image])
        durable.write_json(
            folder / "run.json",
            {
                "competition": "tiles", "name": name, "fold": fold, "folds": 2,
                "predicts": predicts, "finished": True, "seconds": 60.0, "images": len(held),
                "score": 0.6, "floor": 0.5, "seconds_per_image": 0.25,
                "data": durable.sha256_file(self.data / "manifest.json"),
                "recipe": {
                    "model": {"target": "smp", "kwargs": {}}, "size": None,
                    "input": {"target": "grey", "kwargs": {}}, "tta": ["none", "hflip"],
                },
            },
        )  # fmt: skip

    def _probs(self, rng, image, predicts, noise):
        found = []
        for c in range(len(self.spec.classes)):
            wrong = rng.random() < noise
            if predicts == "label":
                there = c in self.truth[image]
                found.append(np.clip((0.8 if there != wrong else 0.2) + rng.normal(0, 0.1), 0, 1))
                continue
            height, width = self.sizes[image]
            mask = rle.decode(self.truth[image].get(c, ""), height, width).astype(np.float32)
            if wrong:
                mask = np.zeros_like(mask) if mask.any() else mask
                if rng.random() < 0.6:
                    mask[5:20, 8:24] = 1
            found.append(np.clip(0.9 * mask + 0.04 + 0.02 * rng.random(mask.shape), 0, 1))
        return np.array(found, np.float32)

    def ensemble(self, *runs):
        """Join runs as `kagflow ensemble` does."""
        folder = self.root / "runs" / "tiles"
        chosen = {run: sorted((folder / run).glob("fold*")) for run in runs}
        built = ensemble.build_ensemble(chosen, self.spec, self.data, home=self.root)
        file = self.root / "ensembles" / "tiles" / "default.json"
        durable.write_json(file, built.value)
        perimage.write(perimage.path_beside(file), built.images)
        return self

    def collect(self, *, limits=None, history=True):
        """Collect what a report shows, as the command does."""
        file = self.root / "ensembles" / "tiles" / "default.json"
        value = json.loads(file.read_text()) if file.is_file() else None
        place = Place(
            spec=self.spec,
            data=self.data,
            runs=self.root / "runs" / "tiles",
            ensemble=value,
            images_file=file if value else None,
            command=lambda words: f"kagflow {words}",
            submissions=[SUBMISSION] if history else [],
            hours=HOURS if history else [],
        )
        return Collector(place, limits or Limits()).collect()


@pytest.fixture(scope="session")
def build_in():
    """Return a function that builds a workspace in a folder."""
    return House


@pytest.fixture
def build(tmp_path):
    """Return a function that builds a workspace."""
    return lambda **how: House(tmp_path, **how)


@pytest.fixture
def house(build):
    return build()


@pytest.fixture(scope="session")
def browser():
    """Be a real Chromium without a window; skipped where there is none."""
    if CHROMIUM is None:
        pytest.skip("no chromium here: apt-get install chromium")
    playwright = pytest.importorskip("playwright.sync_api")
    with playwright.sync_playwright() as driver:
        opened = driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield opened
        opened.close()

"""A workspace with fetched data, in which runs appear as training leaves them."""

from __future__ import annotations

import numpy as np

from kagflow import durable
from kagflow.learn import ensemble
from kagflow.learn.oof import OofWriter
from kagflow.task import rle
from kagflow.task.folds import write_folds
from kagflow.task.spec import TaskSpec

SPEC = TaskSpec("slug", "segmentation", ("1", "2"))
KINDS = TaskSpec("slug", "classification", ("a", "b"), value_column="Labels", metric="exact_match")
SHAPE = (16, 20)
IMAGES = [f"{number:03}.jpg" for number in range(80)]


class House:
    """A workspace with fetched data, in which runs appear as training leaves them."""

    def __init__(self, root, spec, folds=2):
        self.home, self.spec, self.folds = root, spec, folds
        self.data = root / "data" / "comp"
        rng = np.random.default_rng(0)
        self.truth = {}
        for number, name in enumerate(IMAGES):
            shown = [index for index in range(2) if rng.random() < (0.5, 0.25)[index]]
            if spec.exclusive:
                shown = [number % 2]
            self.truth[name] = {index: self.mask(rng) for index in shown}
        durable.write_json(self.data / "manifest.json", {"profile": "local", "files": {}})
        write_folds(
            self.data / "folds.csv",
            {name: (number // 2, number // 2 % folds) for number, name in enumerate(IMAGES)},
        )
        self.write_labels()

    def mask(self, rng):
        top, left = int(rng.integers(0, 8)), int(rng.integers(0, 12))
        mask = np.zeros(SHAPE, bool)
        mask[top : top + 8, left : left + 8] = True
        return rle.encode(mask)

    def write_labels(self):
        lines = ["ImageId,ClassId,EncodedPixels"]
        lines += [
            f"{n},{c + 1},{text}" for n, found in self.truth.items() for c, text in found.items()
        ]
        if self.spec.kind == "classification":
            lines = ["ImageId,Labels"]
            lines += [f"{n},{' '.join('ab'[c] for c in sorted(f))}" for n, f in self.truth.items()]
        durable.write_text(self.data / "train.csv", "\n".join(lines) + "\n")

    def run(self, name, fold, predicts="mask", *, noise=0.3, seconds=0.5):
        """Train nothing, but leave what a training leaves."""
        folder = self.home / "runs" / "comp" / name / f"fold{fold}"
        rng = np.random.default_rng([fold, len(name)])
        held = [image for number, image in enumerate(IMAGES) if number // 2 % self.folds == fold]
        with OofWriter(folder / "oof", predicts, 2) as store:
            for image in held:
                probs = [self.probability(rng, image, c, predicts, noise) for c in range(2)]
                store.add(image, np.array(probs, np.float32), *SHAPE)
        run = {
            "competition": "comp", "name": name, "fold": fold, "folds": self.folds,
            "predicts": predicts,
            "recipe": {
                "model": {"target": "smp", "kwargs": {}}, "input": {"target": "grey", "kwargs": {}},
                "size": [16, 20], "tta": ["none", "hflip"],
            },
            "finished": True, "seconds": 10.0, "images": len(held), "score": 0.5 + fold / 10,
            "floor": 0.4, "data": durable.sha256_file(self.data / "manifest.json"),
            "seconds_per_image": seconds,
        }  # fmt: skip
        durable.write_json(folder / "run.json", run)
        return folder

    def probability(self, rng, image, index, predicts, noise):
        shown = index in self.truth[image]
        if predicts == "label":
            return np.clip(shown * 0.8 + 0.1 + rng.normal() * noise, 0, 1)
        true = rle.decode(self.truth[image].get(index), *SHAPE) * 0.8
        false = np.zeros(SHAPE)
        if not shown and rng.random() < 0.4:
            false[2:10, 3:11] = 0.8
        return np.clip(true + false + rng.random(SHAPE) * noise / 3, 0, 1)

    def build(self, runs, **wish):
        return self.built(runs, **wish).value

    def built(self, runs, *, progress=None, **wish):
        wish = ensemble.Wish(**wish)
        return ensemble.build_ensemble(
            runs, self.spec, self.data, home=self.home, wish=wish, progress=progress
        )

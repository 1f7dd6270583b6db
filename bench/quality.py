"""kagflow's default recipe against the usual smp script, on real images, at equal CPU time.

    python bench/quality.py prepare WORKSPACES SHARED_DATA   make the workspaces, once
    python bench/quality.py look WORKSPACES                  out-of-fold scores of what is trained
    python bench/quality.py run WORKSPACES LABEL             train what is missing, append the rows
    python bench/quality.py hidden WORKSPACES LABEL          score the hidden part, append the rows

Each training is a process of its own on one thread. A finished training is never redone, and a row
that `QUALITY.md` holds is never computed again. `QUALITY.md` says how to read it.
"""

from __future__ import annotations

import argparse
import csv
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import quality_train as training
import torch
from quality_rows import (
    FOLDS,
    SEEDS,
    Arm,
    append,
    look,
    our_arm,
    plain_arm,
    rows,
    worth,
)
from quality_train import ARENAS, Place

from kagflow.yaml_file import dump_yaml, read_yaml

HERE = Path(__file__).parent
BIN = Path(sys.executable).parent
# Of neu-steel's training images, so that a fold is small enough for many trainings.
IMAGES = {"neu_steel": 900}


def prepare(root: Path, shared: Path) -> None:
    """Make a workspace a data set: a fixed choice of images, part of them sealed as the hidden."""
    for name, arena in ARENAS.items():
        home = root / name
        if (home / "competitions").is_dir():
            continue
        described = HERE.parent / "tests" / "competitions" / name
        shutil.copytree(described, home / "competitions" / name)
        path = home / "competitions" / name / "competition.yaml"
        path.write_text(dump_yaml(read_yaml(path) | {"folds": FOLDS}))
        source = shared / arena.data
        chosen = _choose(source, home / "chosen", IMAGES[name]) if name in IMAGES else source
        add = ("local", "add", name, "--data", str(chosen), "--holdout", "0.3", "--sealed")
        for words in (add, ("fetch", name), ("local", "stop")):
            command = [str(BIN / "kagflow"), "--profile", "local", *words]
            subprocess.run(command, cwd=home, check=True)


def _choose(source: Path, target: Path, count: int) -> Path:
    names = sorted(path.name for path in (source / "train_images").iterdir())
    kept = set(np.random.default_rng(0).choice(names, count, replace=False).tolist())
    (target / "train_images").mkdir(parents=True)
    for name in kept:
        (target / "train_images" / name).symlink_to(source / "train_images" / name)
    with (source / "train.csv").open(newline="") as file:
        header, *rows = csv.reader(file)
    with (target / "train.csv").open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerows([header, *(row for row in rows if row[0] in kept)])
    shutil.copy(source / "sample_submission.csv", target)
    return target


def train(place: Place, label: str) -> float:
    """Train whatever is missing; return the script's better learning rate out of fold."""
    for seed in SEEDS:
        for lr in place.arena.rates:
            _process(place, f"plain:{lr}", seed)
        _process(place, f"ours:{label}", seed)
    return max(place.arena.rates, key=lambda rate: worth(place, plain_arm(place, rate)))


def _process(place: Place, arm: str, seed: int) -> None:
    script = HERE / "quality_train.py"
    words = [sys.executable, str(script), str(place.root), place.arena.name, arm, str(seed)]
    subprocess.run(words, cwd=HERE, check=True, env={**os.environ, "OMP_NUM_THREADS": "1"})


def predict_hidden(place: Place, ours: Arm, theirs: Arm) -> None:
    """Predict the hidden part with every training of both arms, unless that is done."""
    torch.set_num_threads(1)
    files = place.hidden_files()
    for folder in ours.folders:
        training.predict_ours(place, folder, files, "hidden")
    for folder in theirs.folders:
        training.predict_plain(folder, files, "hidden")


def main() -> None:
    """Do what the command line says."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", choices=("prepare", "look", "run", "hidden"))
    parser.add_argument("root", type=Path)
    parser.add_argument("word", nargs="?", help="prepare: the shared data; run, hidden: a label")
    given = parser.parse_args()
    root = given.root.resolve()
    if given.what == "prepare":
        prepare(root, Path(given.word).resolve())
        return
    for name, arena in ARENAS.items():
        place = Place(root / name, arena)
        if given.what == "look":
            look(place)
            continue
        lr = train(place, given.word)
        arms = our_arm(place, given.word), plain_arm(place, lr)
        if given.what == "hidden":
            predict_hidden(place, *arms)
        print(*append(rows(place, *arms, on_hidden=given.what == "hidden")), sep="\n")


if __name__ == "__main__":
    main()

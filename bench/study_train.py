"""One training of the study with all its predictions, in a process of its own, on one thread.

    python study_train.py WORKSPACES DATA TRAINING SEED   train and predict; what is finished stays

A training leaves its stores (`oof`, `hidden`, and `-one` of the reference's first view) and
note.json with what it took in its folder of the workspace. A workspace may be lost between
sessions: what stays are the records of study_records.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import platform
import shutil
import sys
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import plain_smp
import quality_train as training
import study_arms as arms
import torch
from quality_train import ARENAS, FOLD, Place

from kagflow import durable, resources
from kagflow.learn.oof import OofWriter
from kagflow.task.labels import read_labels

ONE_VIEW = "-one"


def folder_of(place: Place, name: str, seed: int) -> Path:
    """Return where a training lies in the workspace."""
    runs = place.root / ".kagflow/local/runs" / place.arena.name
    return runs / f"study-{name}-seed={seed}" / f"fold{FOLD}"


def told(place: Place, name: str, seed: int) -> dict[str, Any] | None:
    """Return the note of a training whose stores are here, None where there is none."""
    note = folder_of(place, name, seed) / "note.json"
    return dict(json.loads(note.read_text())) if note.is_file() else None


def do(place: Place, name: str, seed: int) -> None:
    """Train, predict, and note what it took, unless that is done; what is half done begins anew."""
    if told(place, name, seed):
        return
    folder = folder_of(place, name, seed)
    shutil.rmtree(folder, ignore_errors=True)
    images = arms.budget(place.arena, name, arms.costs().get(place.arena.name, {}))
    began = time.monotonic()
    if arms.TRAININGS[name].script:
        note = _script(place, folder, arms.script(place, name, seed, images))
    else:
        note = _recipe(place, folder, name, seed, images)
    note["cpu_seconds"] = round(note["cpu_seconds"], 1)
    note |= {"wall_seconds": round(time.monotonic() - began, 1), "machine": machine()}
    note |= {"torch": torch.__version__, "at": f"{datetime.now(UTC):%Y-%m-%d}"}
    durable.write_json(folder / "note.json", note)


def machine() -> str:
    """Say what computes: the processor's name and the cores of the machine."""
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return f"{names[0] if names else platform.machine()}, {os.cpu_count()} cores, 1 thread"


def _recipe(place: Place, folder: Path, name: str, seed: int, images: int) -> dict[str, Any]:
    recipe = arms.recipe(place, name, seed, images)
    made = training.train_ours(place, folder.parent.name, recipe)
    assert made == folder
    training.predict_ours(place, folder, place.hidden_files(), "hidden")
    if name == arms.REFERENCE:
        for store, held_out in (("oof", True), ("hidden", False)):
            files = place.files(held_out=True) if held_out else place.hidden_files()
            training.predict_ours(place, folder, files, store + ONE_VIEW, ("none",))
    code = json.loads((folder / "provenance.json").read_text())["code"]
    return {**json.loads((folder / "train.json").read_text()), "code": code}


def _script(place: Place, folder: Path, script: plain_smp.Script) -> dict[str, Any]:
    truth = read_labels(place.data / place.spec.train_csv, place.spec)
    model, note = plain_smp.train(script, place.files(held_out=False), truth)
    with torch.no_grad():
        traced = torch.jit.trace(model.eval(), torch.zeros(1, 3, *script.size))
    folder.mkdir(parents=True)
    for store, files in (("oof", place.files(held_out=True)), ("hidden", place.hidden_files())):
        with OofWriter(folder / store, "mask", script.classes) as out:
            for image, probs, size in plain_smp.predict(traced, script, files, flip=True):
                out.add(image, probs, *size)
    code = hashlib.sha256(Path(plain_smp.__file__).read_bytes()).hexdigest()
    return {**note, "code": code}


def main() -> None:
    """Do one training."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("root", type=Path)
    parser.add_argument("data", choices=sorted(ARENAS))
    parser.add_argument("training", choices=sorted(arms.TRAININGS))
    parser.add_argument("seed", type=int)
    given = parser.parse_args()
    torch.set_num_threads(1)
    sys.path.insert(0, str(resources.competitions()))
    place = Place(given.root.resolve() / given.data, ARENAS[given.data])
    do(place, given.training, given.seed)
    note = told(place, given.training, given.seed) or {}
    print(given.data, given.training, given.seed, json.dumps(note))


if __name__ == "__main__":
    main()

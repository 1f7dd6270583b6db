"""Search an ensemble of 6 members at Severstal's full size, and see how the time grows.

ensemble_search.py IMAGES MEMBERS   one search, in a process of its own; prints JSON
ensemble_search.py                  the full size, and small sizes for the growth

Drawing the full size takes longer than searching it, so what is drawn stays in the user's cache.
"""

from __future__ import annotations

import json
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import oof_world

from kagflow.learn.ensemble import build_ensemble
from kagflow.workspace import user_cache

FULL = 12_568
SMALL = (157, 314, 628, 1256)
FEW = (2, 3, 4, 6)


def search(home: Path, runs: dict[str, list[Path]]) -> dict[str, float | str]:
    """Search in a process of its own: seconds, peak memory in GB, what was found."""
    job = {"home": str(home), "runs": {run: [str(f) for f in at] for run, at in runs.items()}}
    done = subprocess.run(
        [sys.executable, __file__, "--job", json.dumps(job)],
        check=True,
        capture_output=True,
        text=True,
    )
    return json.loads(done.stdout)


def one(job: dict[str, object]) -> None:
    """Search once and print what it took."""
    home = Path(str(job["home"]))
    runs = {run: [Path(f) for f in at] for run, at in job["runs"].items()}
    began = time.perf_counter()
    built = build_ensemble(runs, oof_world.SPEC, home / "data", home=home)
    took = time.perf_counter() - began
    cv = built.value["cv"]
    print(
        json.dumps(
            {
                "seconds": took,
                "cpu": sum(resource.getrusage(resource.RUSAGE_SELF)[:2]),
                "gigabytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20,
                "kind": built.value["kind"],
                **{key: cv[key] for key in ("images", "naive", "crossfitted", "default", "floor")},
            }
        )
    )


def measure(images: int, members: int) -> dict[str, float | str]:
    """Draw a world, unless that is done, and search it."""
    home = user_cache() / "bench" / f"world-{images}-{members}"
    drawn = home / "runs.json"
    if not drawn.is_file():
        shutil.rmtree(home, ignore_errors=True)
        home.mkdir(parents=True)
        runs = oof_world.make(home, images, members)
        names = {run: [str(f.relative_to(home)) for f in at] for run, at in runs.items()}
        drawn.write_text(json.dumps(names))
    known = json.loads(drawn.read_text())
    runs = {run: [home / name for name in names] for run, names in known.items()}
    return {"members": members, **search(home, runs)}


def growth() -> dict[str, float]:
    """Fit the exponents with which seconds grow in images and in members."""
    home = Path(tempfile.mkdtemp(prefix="kagflow-bench-"))
    try:
        by_images = []
        for images in SMALL:
            runs = oof_world.make(home / str(images), images, max(FEW))
            by_images.append(float(search(home / str(images), runs)["seconds"]))
        some = [dict(list(runs.items())[:few]) for few in FEW]
        by_members = [float(search(home / str(SMALL[-1]), few)["seconds"]) for few in some]
    finally:
        shutil.rmtree(home)
    fit = {
        "images": float(np.polyfit(np.log(SMALL), np.log(by_images), 1)[0]),
        "members": float(np.polyfit(np.log(FEW), np.log(by_members), 1)[0]),
    }
    print(f"{SMALL} images: {by_images}; {FEW} members: {by_members}", file=sys.stderr)
    return fit


def told(images: int) -> str:
    """Say what a search at full size takes, and how that grows."""
    full, grown = measure(images, max(FEW)), growth()
    return (
        f"An ensemble of {max(FEW)} members chosen and tuned on {full['images']} generated images "
        f"of 4 x 256x1600: {full['seconds'] / 60:.1f} minutes, {full['cpu'] / 60:.1f} of "
        f"processor, at most {full['gigabytes']:.2f} GB. Taken: {full['kind']}, cross-fitted "
        f"{full['crossfitted']:.4f}, naive {full['naive']:.4f}, default {full['default']:.4f}, "
        f"all-empty {full['floor']:.4f}. From {SMALL[0]} to {SMALL[-1]} images the time grows as "
        f"images to the {grown['images']:.2f}; from {FEW[0]} to {FEW[-1]} members as members to "
        f"the {grown['members']:.2f}."
    )


def main() -> None:
    """Measure what the words ask for."""
    if sys.argv[1:2] == ["--job"]:
        one(json.loads(sys.argv[2]))
    elif len(sys.argv) == 3:
        print(json.dumps(measure(int(sys.argv[1]), int(sys.argv[2]))))
    else:
        print(json.dumps({"growth": growth(), "full": measure(FULL, max(FEW))}))


if __name__ == "__main__":
    main()

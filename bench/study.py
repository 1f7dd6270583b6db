"""The study of Severstal's open questions on real images, over as many sessions as it takes.

    python bench/quality.py prepare WORKSPACES SHARED_DATA      make the workspaces, once a session
    python bench/study.py WORKSPACES status                     what is there and what is missing
    python bench/study.py WORKSPACES row encoder                train what a row needs, append it
    python bench/study.py WORKSPACES next --minutes 30          train what is missing, till then

What a training came to is a small file in bench/study/, to be committed: a fresh checkout goes on
from those. `docs/explanation/study.md` says what is compared and how to read `STUDY.md`.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Iterable
from pathlib import Path

import study_arms as arms
import study_records as records
import study_rows as rows
import study_train
from quality_train import ARENAS, Place

from kagflow import resources

HERE = Path(__file__).parent
# Wall seconds of a training of which nothing is known yet: a third more than on a quiet core.
GUESS = 320.0
DATA = ("neu_steel", "magnetic_tile")
# One view is looked at where the reference's predictions are.
FIRST = ((arms.REFERENCE, "one-view"), (arms.BASELINE,))
Unit = tuple[str, str, int]


def order(row: str | None = None) -> list[Unit]:
    """Return data, arm and seed of every record that a row needs, or all do.

    Of all, the baseline's first line comes first, then row after row; its second line, which
    chooses among the arms of the other rows, is complete when these are.
    """
    if row:
        return [(data, *one) for data in DATA for one in rows.needs(row, data)]
    first = [
        (data, arm, seed) for data in DATA for few in FIRST for seed in range(3) for arm in few
    ]
    others = [one for name in rows.ROWS if name != "baseline" for one in order(name)]
    return list(dict.fromkeys([*first, *others]))


def missing(units: Iterable[Unit]) -> list[Unit]:
    """Return those without a record."""
    return [one for one in units if not records.path_of(*one).is_file()]


def seconds(name: str) -> float:
    """Return the median wall seconds that a training of this name took, else a guess."""
    took = []
    for file in arms.KEPT.glob("*/*-seed*.json"):
        arm, _, seed = file.stem.rpartition("-seed")
        note = records.read(file.parent.name, arm, int(seed))["trainings"].get(name)
        took += [float(note["wall_seconds"])] if note else []
    return statistics.median(took) if took else GUESS * arms.TRAININGS[name].share


def do(root: Path, unit: Unit, *, until: float | None = None) -> bool:
    """Train and score one record.

    Return False where it would not be done by `until` (monotonic), or its cost is not known and
    the machine is too busy to measure it.
    """
    data, arm, seed = unit
    place = Place(root / data, ARENAS[data])
    needed = [one for one in arms.ARMS[arm].trainings if study_train.told(place, one, seed) is None]
    if until is not None and time.monotonic() + sum(map(seconds, needed)) > until:
        return False
    if not all(_costed(root, data, name) for name in needed):
        return False
    for name in needed:
        _run("study_train.py", root, data, name, str(seed))
    print("kept", records.make(place, arm, seed).relative_to(HERE), flush=True)
    return True


def _costed(root: Path, data: str, name: str) -> bool:
    """Measure what an image of a training costs, once; False where the machine is too busy."""

    def known() -> bool:
        return not arms.TRAININGS[name].probed or name in arms.costs().get(data, {})

    return known() or (_run("study_costs.py", root, data, name, check=False) == 0 and known())


def _run(script: str, root: Path, *words: str, check: bool = True) -> int:
    """Run one of the study's scripts on one thread; return its exit status."""
    argv = [sys.executable, str(HERE / script), str(root), *words]
    alone = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.run(argv, cwd=HERE, check=check, env=alone).returncode


def write_rows() -> list[str]:
    """Append, print and return every new line whose records are all there."""
    found = []
    for row in rows.ROWS:
        for data in DATA:
            if (arms.KEPT / data / "images.json").is_file():
                images = records.images_of(data)
                found += rows.lines(row, data, records.there, records.read, images)
    fresh = rows.append(found, rows.RESULTS)
    for line in fresh:
        print(line, flush=True)
    return fresh


def status() -> None:
    """Print how many records each row has of those that it needs, and what is left to train."""
    for row in rows.ROWS:
        for data in DATA:
            needed = [(data, arm, seed) for arm, seed in rows.needs(row, data)]
            left = missing(needed)
            names = sorted({f"{arm} {seed}" for _, arm, seed in left})
            print(f"{row:9} {data:14} {len(needed) - len(left)} of {len(needed)}", *names, sep="  ")
    units = missing(order())
    trainings = {(d, one, s) for d, arm, s in units for one in arms.ARMS[arm].trainings}
    hours = sum(seconds(name) for _, name, _ in trainings) / 3600
    print(f"{len(units)} records are missing: about {hours:.1f} h at the pace so far")


def main() -> None:
    """Do what the command line says."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("root", type=Path)
    parser.add_argument("what", choices=("status", "row", "next"))
    parser.add_argument("row", nargs="?", choices=sorted(rows.ROWS))
    parser.add_argument("--minutes", type=float, default=None)
    parser.add_argument("--data", choices=DATA, help="this one alone: two may train side by side")
    given = parser.parse_args()
    root = given.root.resolve()
    sys.path.insert(0, str(resources.competitions()))
    if given.what == "status":
        status()
        return
    until = time.monotonic() + given.minutes * 60 if given.minutes else None
    for unit in missing(order(given.row)):
        if given.data in (None, unit[0]) and do(root, unit, until=until):
            write_rows()
    write_rows()


if __name__ == "__main__":
    main()

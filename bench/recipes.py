"""What Severstal's recipes take: parameters, memory, seconds a step; writes the README's table.

    python bench/recipes.py               measure what recipes.json lacks, then write the table
    python bench/recipes.py lite smoke    measure these anew
    python bench/recipes.py --one lite    measure one in this process and print it

Each recipe is measured in a process of its own, on generated frames, by what `kagflow train --plan`
measures with. Time is the processor's own clock on one thread, so that other work on the machine
matters little. A recipe is kept in recipes.json as soon as it is done; one whose speed depends on
something else by now, or that another machine measured, is measured anew.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import re
import resource
import subprocess
import sys
import tempfile
import textwrap
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch

from kagflow import durable, resources
from kagflow.cli.plan import busy
from kagflow.config import load_competition, load_recipe
from kagflow.infer.models import build_model
from kagflow.learn import tryout
from kagflow.learn.job import Job
from kagflow.learn.prepare import machine_name
from kagflow.learn.speed import Speed, speed_key
from kagflow.naming import FULL
from kagflow.task.folds import write_folds

HERE = Path(__file__).parent
COMPETITION = resources.competitions() / "severstal"
KEPT, PAGE = HERE / "recipes.json", HERE.parent / "README.md"
BEGIN, END = "<!-- recipes: written by make recipes -->", "<!-- recipes: end -->"
FRAMES = 24
CPU = torch.device("cpu")
# Whole batches are taken up to so many seconds and bytes, and so much of what is free.
SECONDS, BYTES, SHARE = 90.0, 14e9, 0.8
FEWER = "\\*"


@dataclass(frozen=True)
class Row:
    """What one recipe takes on one thread: seconds of the processor's clock, bytes.

    A step is of `batch` crops, `accumulate` times over; `seconds` is of one, its data included.
    Both were measured on `images` at a time and scaled. `held` is what the process took at most,
    mapped files included.
    """

    key: str
    parameters: int
    seconds: float
    memory: int
    images: int
    held: int
    machine: str
    busy: bool
    torch: str
    at: str


def recipes() -> dict[str, Path]:
    """Return the files of the recipes by name."""
    return {path.stem: path for path in sorted((COMPETITION / "recipes").glob("*.yaml"))}


def parameters(recipe: Mapping[str, Any]) -> int:
    """Count what training changes in a recipe's model, without making its numbers."""
    classes = len(load_competition(COMPETITION).classes)
    with _importable(), torch.device("meta"):
        model = build_model(recipe["model"], classes=classes)
    return sum(one.numel() for one in model.parameters())


def key_of(recipe: Mapping[str, Any]) -> str:
    """Return a digest of what a recipe's speed and memory depend on."""
    return hashlib.sha256(speed_key(recipe, 1).encode()).hexdigest()[:12]


def measure(name: str) -> Row:
    """Try one recipe out as it is, on whole batches where time and memory allow.

    On no fold in particular, so that nothing is held out and predicted.
    """
    recipe = load_recipe(recipes()[name]).model_dump(mode="json")
    loud = busy()
    with tempfile.TemporaryDirectory(prefix="kagflow-bench-") as folder, _importable():
        job = Job(
            Path(folder) / "runs" / "severstal" / name / FULL,
            recipe, load_competition(COMPETITION).task(), frames(Path(folder)), FULL, "cpu",
        )  # fmt: skip
        with patch.object(tryout.time, "monotonic", time.process_time):
            speed = settled(job)
    return Row(
        key=key_of(recipe),
        parameters=parameters(recipe),
        seconds=speed.image * recipe["batch"] * recipe["accumulate"],
        memory=speed.memory or 0,
        images=int(re.findall(r"steps of (\d+) images", speed.source)[0]),
        held=1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss,
        machine=machine_name(CPU),
        busy=loud,
        torch=torch.__version__,
        at=f"{datetime.now(UTC):%Y-%m-%d}",
    )


def settled(job: Job) -> Speed:
    """Return the speed of whole batches; of two images, warmed up, where a batch would be much."""
    rough = tryout.try_out(job, CPU)
    batch = job.recipe["batch"]
    if f"of {batch} images" in rough.source:
        return rough
    room = min(BYTES, SHARE * _available())
    whole = rough.image * batch < SECONDS and (rough.memory or 0) < room
    # A first step of two images is below four images' time, a batch of eight or more is not.
    with patch.object(tryout, "SLOW", float("inf") if whole else 4 * rough.image):
        return tryout.try_out(job, CPU)


def frames(folder: Path) -> Path:
    """Draw a few frames of severstal-mini, as fetch would leave them in two folds."""
    import severstal.mini as mini

    with patch.object(mini, "SPLITS", {"train": FRAMES, "Public": 1, "Private": 1}):
        mini.generate(folder / "mini", seed=0)
    data = folder / "data" / "severstal"
    data.parent.mkdir()
    (folder / "mini" / "public").rename(data)
    names = sorted(path.name for path in (data / "train_images").iterdir())
    write_folds(data / "folds.csv", {name: (at, at % 2) for at, name in enumerate(names)})
    (data / "manifest.json").write_text('{"profile": "local"}')
    return data


def kept() -> dict[str, Row]:
    """Return what recipes.json holds."""
    raw = json.loads(KEPT.read_text()) if KEPT.is_file() else {}
    return {name: Row(**value) for name, value in raw.items()}


def table(rows: Mapping[str, Row]) -> str:
    """Return the README's sentence and table; every recipe must have been measured."""
    some = next(iter(rows.values()))
    beside = ", while other work ran beside" if any(one.busy for one in rows.values()) else ""
    days = sorted({one.at for one in rows.values()})
    said = (
        f"What a step takes on one thread of an {some.machine.removeprefix('1 x ')} in fp32, the "
        f"recipe as it is, {' to '.join(dict.fromkeys((days[0], days[-1])))} (`make recipes`): "
        f"seconds of the processor's clock, data included{beside}; memory as `kagflow train "
        "--plan` forecasts it. A GPU takes its own: `--plan` measures there, too."
    )
    lines = [
        textwrap.fill(said, 100, break_on_hyphens=False),
        "",
        "| recipe | what for | parameters | a step | memory | seconds a step |",
        "|---|---|---|---|---|---|",
        *(_line(name, rows[name]) for name in recipes()),
    ]
    if any(FEWER in line for line in lines):
        lines += ["", f"{FEWER} measured on two images of the batch and scaled up."]
    return "\n".join(lines)


def _line(name: str, row: Row) -> str:
    path = recipes()[name]
    recipe = load_recipe(path)
    why = path.read_text().splitlines()[1].removeprefix("# ").removesuffix(".")
    height, width = recipe.crop or recipe.size or (256, 1600)
    times = f"{recipe.accumulate} x " if recipe.accumulate > 1 else ""
    mark = FEWER if row.images < recipe.batch else ""
    seconds = f"{row.seconds:.1f}" if row.seconds < 10 else f"{row.seconds:.0f}"
    return (
        f"| `{name}` | {why} | {row.parameters / 1e6:.1f} M | {times}{recipe.batch} of "
        f"{height}x{width} | {row.memory / 1e9:.1f} GB{mark} | {seconds}{mark} |"
    )


def written(page: str, rows: Mapping[str, Row]) -> str:
    """Return the README's text with the table between its markers."""
    before, rest = page.split(BEGIN)
    _, after = rest.split(END)
    return f"{before}{BEGIN}\n{table(rows)}\n{END}{after}"


def _stale(name: str, row: Row | None) -> bool:
    recipe = load_recipe(recipes()[name]).model_dump(mode="json")
    return row is None or (row.key, row.machine) != (key_of(recipe), machine_name(CPU))


def _apart(name: str) -> Row:
    words = [sys.executable, __file__, "--one", name]
    env = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run(words, env=env, check=True, stdout=subprocess.PIPE, text=True)
    return Row(**json.loads(done.stdout.splitlines()[-1]))


def _available() -> int:
    found = re.search(r"^MemAvailable:\s*(\d+) kB", Path("/proc/meminfo").read_text(), re.MULTILINE)
    assert found
    return 1024 * int(found[1])


@contextmanager
def _importable() -> Iterator[None]:
    with patch.object(sys, "path", [str(COMPETITION.parent), *sys.path]):
        yield


def main() -> None:
    """Measure what is named or missing, recipe by recipe, and write the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", metavar="RECIPE")
    parser.add_argument("--one", choices=list(recipes()))
    given = parser.parse_args()
    # The machine's name tells of threads.
    torch.set_num_threads(1)
    if given.one:
        print(json.dumps(asdict(measure(given.one))))
        return
    rows = {name: row for name, row in kept().items() if name in recipes()}
    for name in recipes():
        if name in given.names or _stale(name, rows.get(name)):
            rows[name] = _apart(name)
            print(name, rows[name], flush=True)
            durable.write_json(KEPT, {one: asdict(rows[one]) for one in recipes() if one in rows})
    durable.write_text(PAGE, written(PAGE.read_text(), rows))


if __name__ == "__main__":
    main()

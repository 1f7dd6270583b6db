"""Three members on real images: what the road says of them, and whether the hidden part agrees.

    python bench/quality.py prepare WORKSPACES SHARED_DATA   make the workspaces, once
    python bench/members.py train WORKSPACES NAME            two segmenters and a gate, two folds
    python bench/members.py rows WORKSPACES NAME             ensembles, and their rows out of fold
    python bench/members.py hidden WORKSPACES NAME           score the hidden part, append the rows

Everything is done by kagflow's own commands, as a person would. A finished training is never
redone, and a row that `MEMBERS.md` holds is never computed again. `MEMBERS.md` says how to read it.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from quality_rows import append
from quality_train import ARENAS, ENCODER, WIDTHS, Place

from kagflow.learn import perimage
from kagflow.learn.search import PARTS
from kagflow.learn.shakeup_sampling import Paired, predict_interval
from kagflow.task import metric as metrics
from kagflow.task.table import read_table, write_table
from kagflow.yaml_file import dump_yaml

RESULTS = Path(__file__).parent / "MEMBERS.md"
KAGFLOW = Path(sys.executable).parent / "kagflow"
# Images that a fold's training of a segmenter sees; a gate sees as many.
SEEN = {"magnetic_tile": 1400, "neu_steel": 1700}
SEGMENTERS: dict[str, dict[str, Any]] = {
    "fpn-lite": {"arch": "FPN", **WIDTHS},
    "unet-lite": {"arch": "Unet", "encoder_depth": 4, "decoder_channels": [64, 48, 32, 16]},
}
GATE = "gate"
# Of three.
HELD_OUT = "1,2"
# Each step's ensemble, and the runs that it may choose from.
STEPS = {
    "untuned": ("fpn-lite",),
    "tuned": ("fpn-lite",),
    "gated": ("fpn-lite", GATE),
    "joined": ("fpn-lite", "unet-lite", GATE),
}


def kagflow(place: Place, *words: str) -> dict[str, Any]:
    """Run a command of the road in the workspace and return what it says as JSON."""
    argv = [str(KAGFLOW), "--json", "--profile", "local", *words]
    done = subprocess.run(argv, cwd=place.root, stdout=subprocess.PIPE, check=True, text=True)
    return dict(json.loads(done.stdout)) if done.stdout.strip() else {}


def train(place: Place) -> None:
    """Train two folds of the three members; what is finished stays."""
    name, size = place.arena.name, list(place.arena.size)
    folder = place.root / "competitions" / name / "recipes"
    for recipe, kwargs in SEGMENTERS.items():
        model = {"target": "smp", "kwargs": {"encoder": ENCODER, **kwargs}}
        value = {"model": model, "weights": "packaged", "size": size, "batch": place.arena.batch}
        (folder / f"{recipe}.yaml").write_text(dump_yaml(value))
    count = sum(1 for _ in (place.data / place.spec.train_images).iterdir())
    # Two of three folds are trained on.
    epochs = max(1, round(SEEN[name] / (count * 2 / 3)))
    for recipe in (*SEGMENTERS, GATE):
        words = [f"recipe={recipe}", f"fold={HELD_OUT}", f"epochs={epochs}", f"name={recipe}"]
        kagflow(place, "train", name, *words)


def join(place: Place, step: str) -> dict[str, Any]:
    """Make the ensemble of a step; the untuned one is the tuned one under default rules."""
    name = place.arena.name
    value = kagflow(place, "ensemble", name, *STEPS[step], "--name", step)
    if step == "untuned":
        file = Path(value["ensemble"])
        plain = json.loads(file.read_text())
        rule = {"threshold": 0.5, "min_area": 0, "gate": 0.0}
        plain["rules"] = [rule for _ in plain["rules"]]
        file.write_text(json.dumps(plain, indent=1))
    return value


def out_of_fold(place: Place, step: str, images: int) -> tuple[float, float, float]:
    """Return a step's score out of fold and where that of `images` others lies with 90 of 100."""
    file = place.root / ".kagflow/local/ensembles" / place.arena.name / f"{step}.json"
    metric = metrics.load(place.spec)
    each = perimage.read(perimage.path_beside(file), metric, place.spec.classes)
    if step == "untuned":
        each = untuned_images(place, each)
    paired = Paired(each.image_scores[None], each.clusters)
    parts = 0 if step == "untuned" else PARTS
    ((low, high),) = predict_interval(paired, images, parts=parts)
    return float(each.image_scores.mean()), float(low), float(high)


def untuned_images(place: Place, like: perimage.PerImage) -> perimage.PerImage:
    """Count the lone member at threshold .5 on the images of `like`."""
    from kagflow.learn.evidence import gather, open_member
    from kagflow.learn.search import default_counts
    from kagflow.task.folds import read_folds
    from kagflow.task.labels import read_labels

    runs = place.root / ".kagflow/local/runs" / place.arena.name
    folds = read_folds(place.data / "folds.csv")
    clusters = {image: cluster for image, (cluster, _) in folds.items()}
    truth = read_labels(place.data / place.spec.train_csv, place.spec, only=clusters)
    store = open_member(sorted((runs / STEPS["untuned"][0]).glob("fold*")))
    seen = gather([store], truth, place.spec, clusters=clusters, pieces=False)
    images = perimage.images_of(seen.image_ids, folds)
    counts = default_counts(seen)[[2, 1, 0]]
    made = perimage.from_counts(
        "untuned", place.spec.classes, images, counts, metrics.load(place.spec)
    )
    return made.take(like.image_ids)


def hidden(place: Place, step: str) -> tuple[float, float, float]:
    """Predict and score the hidden part as a person would; return score, floor and minutes."""
    name, beside = place.arena.name, place.root / "members"
    beside.mkdir(exist_ok=True)
    csv = beside / f"{step}.csv"
    began = time.monotonic()
    images = place.hidden / "hidden" / place.spec.test_images
    common = ("--competition", name)
    kagflow(place, "predict", str(images), "-o", str(csv), "--ensemble", step, *common)
    minutes = (time.monotonic() - began) / 60
    truth = unsealed(place.hidden / "solution.csv", beside / "solution.csv")
    whole = kagflow(place, "score", str(csv), "--truth", str(truth), *common)["scores"]["all"]
    assert whole["images"] == len(place.hidden_files())
    return float(whole["value"]), float(whole["floor"]), minutes


def unsealed(solution: Path, target: Path) -> Path:
    """Write the truth of the whole hidden part: of a sealed one only the public half is scored."""
    table = read_table(solution)
    kept = [at for at, name in enumerate(table.header) if name != "Usage"]
    rows = [[row[at] for at in kept] for row in table.rows]
    write_table(target, [table.header[at] for at in kept], rows)
    return target


def rows(place: Place, *, on_hidden: bool) -> list[str]:
    """Return a line for each step, and on the way print what each step gains."""
    images = len(place.hidden_files())
    lines = []
    for step, runs in STEPS.items():
        value = join(place, step)
        score, low, high = out_of_fold(place, step, images)
        members = [one["run"] for one in value["members"]]
        gains = {
            what: f"{one['gain']:+.4f} [{one['interval'][0]:+.4f}, {one['interval'][1]:+.4f}]"
            for what, one in value["gains"].items()
        }
        print(place.arena.name, step, members, f"{score:.4f} [{low:.4f}, {high:.4f}]", gains)
        if not on_hidden:
            continue
        got, floor, minutes = hidden(place, step)
        cells = [
            f"{datetime.now(UTC):%Y-%m-%d}",
            place.arena.data,
            step,
            f"of {', '.join(runs)}: {', '.join(dict.fromkeys(members))}",
            f"{value['cv']['images']} of {value['cv']['of']}",
            f"{score:.4f}",
            "-" if step == "untuned" else gains["tuning"],
            gains.get("gate", "-") if step == "gated" else "-",
            gains.get("ensemble", "-") if step == "joined" else "-",
            f"{low:.4f} to {high:.4f}",
            f"{got:.4f} on {images} (floor {floor:.4f})",
            "**inside**" if low <= got <= high else "**outside**",
            f"{minutes:.1f}",
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return lines


def main() -> None:
    """Do what the command line says."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", choices=("train", "rows", "hidden"))
    parser.add_argument("root", type=Path)
    parser.add_argument("name", choices=sorted(ARENAS))
    given = parser.parse_args()
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    place = Place(given.root.resolve() / given.name, ARENAS[given.name])
    if given.what == "train":
        train(place)
        return
    found = rows(place, on_hidden=given.what == "hidden")
    print(*append(found, RESULTS), sep="\n")


if __name__ == "__main__":
    main()

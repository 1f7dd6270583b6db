"""What finished trainings are worth, and how two arms compare: the rows of QUALITY.md."""

from __future__ import annotations

import json
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import quality_stats as stats
import quality_train as training
from numpy.typing import NDArray
from quality_train import Place

from kagflow.infer.postprocess import ClassRule, apply
from kagflow.learn.evidence import Evidence, gather
from kagflow.learn.oof import OofReader
from kagflow.learn.search import default_counts, search
from kagflow.task import metric as metrics
from kagflow.task.folds import make_clusters, read_folds
from kagflow.task.index import build_index
from kagflow.task.labels import read_labels, rows_by_image
from kagflow.task.table import read_table

RESULTS = Path(__file__).parent / "QUALITY.md"
SEEDS = (0, 1, 2)
FOLDS = 3
TRUTH = Mapping[str, Mapping[int, str]]


@dataclass(frozen=True)
class Told:
    """One arm's predictions on some images: counts (3, N, C) at .5 and tuned, and its rules."""

    plain: NDArray[np.int64]
    tuned: NDArray[np.int64]
    rules: tuple[ClassRule, ...]
    clusters: NDArray[np.int64]


@dataclass(frozen=True)
class Arm:
    """The folders of an arm's seeds, the stores to read at .5 and tuned, and its CPU seconds."""

    label: str
    folders: tuple[Path, ...]
    untuned_store: str
    tuned_store: str

    @property
    def seconds(self) -> float:
        """Return the median CPU seconds of a training."""
        return statistics.median(_note(folder)["cpu_seconds"] for folder in self.folders)


# What a row compares: ours and theirs, each as `tuned` or at .5 (`plain`).
ROWS = {
    "trained alike, tuned alike": ("tuned", "tuned"),
    "at threshold .5": ("plain", "plain"),
    "kagflow's road against the script as it is": ("tuned", "plain"),
}


def plain_arm(place: Place, lr: float) -> Arm:
    """Return the script's arm; tuned, it gets flipped views and our search as well."""
    labels = [training.plain_label(lr, seed) for seed in SEEDS]
    folders = tuple(place.root / "quality" / label for label in labels)
    done = tuple(folder for folder in folders if (folder / "train.json").is_file())
    return Arm(f"plain lr {lr:g}", done, "", "-flip")


def our_arm(place: Place, label: str) -> Arm:
    """Return the arm of finished default trainings named `label`."""
    runs = place.root / ".kagflow/local/runs" / place.arena.name
    folders = tuple(runs / f"{label}-seed={seed}" / f"fold{training.FOLD}" for seed in SEEDS)
    return Arm(label, tuple(f for f in folders if (f / "train.json").is_file()), "", "")


def out_of_fold(place: Place, folder: Path, arm: Arm) -> Told:
    """Count a training's out-of-fold predictions, tuned on parts that are not judged."""
    folds = read_folds(place.data / "folds.csv")
    clusters = {name: cluster for name, (cluster, _) in folds.items()}
    truth = read_labels(place.data / place.spec.train_csv, place.spec, only=clusters)
    metric = metrics.load(place.spec)
    views = [_evidence(place, folder / f"oof{end}", truth, clusters) for end in _stores(arm)]
    found = search(views[-1], metric)
    return Told(default_counts(views[0]), found.outside, found.rules, views[-1].clusters)


def worth(place: Place, arm: Arm) -> float:
    """Return an arm's tuned out-of-fold score, the mean over its seeds."""
    metric = metrics.load(place.spec)
    told = [out_of_fold(place, folder, arm) for folder in arm.folders]
    return statistics.mean(float(stats.per_image(one.tuned, metric).mean()) for one in told)


def hidden(place: Place, folder: Path, arm: Arm, rules: Sequence[ClassRule]) -> Told:
    """Count a training's predictions of the hidden part under rules tuned out of fold."""
    truth = rows_by_image(read_table(place.hidden / "solution.csv"), place.spec)
    rows = build_index(place.hidden / "hidden" / place.spec.test_images)
    names = [row.image_id for row in rows]
    groups = make_clusters(rows, limit=max(len(names) // (2 * FOLDS), 32))
    stores = [folder / f"hidden{end}" for end in _stores(arm)]
    bare = [ClassRule()] * len(place.spec.classes)
    return Told(
        _applied(stores[0], names, truth, bare),
        _applied(stores[-1], names, truth, rules),
        tuple(rules),
        np.array(groups, np.int64),
    )


def _applied(
    store: Path, names: Sequence[str], truth: TRUTH, rules: Sequence[ClassRule]
) -> NDArray[np.int64]:
    """Count a store's masks under rules, (3, N, C), by the code that the kernel runs."""
    with OofReader(store) as reader:
        counts = [
            stats.count_masks(apply(reader.mask(name), None, rules), truth.get(name, {}))
            for name in names
        ]
    return np.stack(counts, axis=1)


def _stores(arm: Arm) -> list[str]:
    return list(dict.fromkeys([arm.untuned_store, arm.tuned_store]))


def _evidence(place: Place, store: Path, truth: TRUTH, clusters: Mapping[str, int]) -> Evidence:
    with OofReader(store) as reader:
        members = [dict.fromkeys(reader.image_ids, reader)]
        return gather(members, truth, place.spec, clusters=clusters)


def _note(folder: Path) -> dict[str, float]:
    return dict(json.loads((folder / "train.json").read_text()))


def look(place: Place) -> None:
    """Print what every finished training is worth out of fold."""
    metric = metrics.load(place.spec)
    runs = place.root / ".kagflow/local/runs" / place.arena.name
    found = [(f.parent, "-flip") for f in sorted((place.root / "quality").glob("*/train.json"))]
    found += [(f.parent, "") for f in sorted(runs.glob("*/fold*/train.json"))]
    for folder, flip in found:
        if not (folder / f"oof{flip}" / "index.csv").is_file():
            continue
        told = out_of_fold(place, folder, Arm("", (folder,), "", flip))
        name = folder.name if flip else folder.parent.name
        note = _note(folder)
        scores = [stats.per_image(c, metric).mean() for c in (told.tuned, told.plain)]
        dice = [stats.nonempty(c, metric) for c in (told.tuned, told.plain)]
        floor = stats.per_image(told.plain * np.array([0, 0, 1])[:, None, None], metric).mean()
        print(
            f"{place.arena.name} {name:40} tuned {scores[0]:.4f} at .5 {scores[1]:.4f} "
            f"non-empty {dice[0]:.4f} {dice[1]:.4f} floor {floor:.4f} "
            f"cpu {note['cpu_seconds']:.0f} s, {note['images_seen']:.0f} images"
        )


def rows(place: Place, ours: Arm, theirs: Arm, *, on_hidden: bool) -> list[str]:
    """Compare the arms in each way of `ROWS`, one line each for the results file."""
    arms = (ours, theirs)
    told = [[out_of_fold(place, folder, arm) for folder in arm.folders] for arm in arms]
    if on_hidden:
        told = [
            [hidden(place, f, arm, one.rules) for f, one in zip(arm.folders, ones, strict=True)]
            for arm, ones in zip(arms, told, strict=True)
        ]
    where = "hidden part" if on_hidden else f"fold {training.FOLD}, cross-fitted"
    return [line(place, arms, told, way, where) for way in ROWS]


def line(
    place: Place, arms: Sequence[Arm], told: Sequence[Sequence[Told]], way: str, where: str
) -> str:
    metric = metrics.load(place.spec)
    counts = [
        [getattr(one, which) for one in ones] for ones, which in zip(told, ROWS[way], strict=True)
    ]
    scores = [[stats.per_image(one, metric) for one in ones] for ones in counts]
    found = stats.paired(scores[0], scores[1], told[0][0].clusters)
    dice = [statistics.mean(stats.nonempty(one, metric) for one in ones) for ones in counts]
    empty = np.zeros_like(counts[0][0])
    empty[2] = counts[0][0][2]
    floor = stats.per_image(empty, metric).mean()
    tuned = ROWS[way] == ("tuned", "tuned")
    unanswered = tuned and stats.all_empty([one.rules for ones in told for one in ones])
    verdict = "not answered" if unanswered else found.verdict
    cells = [
        f"{datetime.now(UTC):%Y-%m-%d}",
        place.arena.data,
        f"{where}, {found.images} images",
        way,
        f"{arms[0].label}, {len(counts[0])} seeds",
        f"{arms[1].label}, {len(counts[1])} seeds",
        _score(found.ours, found.ours_spread),
        _score(found.theirs, found.theirs_spread),
        f"{found.gain:+.4f} [{found.low:+.4f}, {found.high:+.4f}]",
        f"**{verdict}**",
        f"{dice[0]:.3f} / {dice[1]:.3f}",
        f"{floor:.4f}",
        f"{arms[0].seconds:.0f} / {arms[1].seconds:.0f}",
    ]
    return f"| {' | '.join(cells)} |"


def _score(value: float, spread: float | None) -> str:
    return f"{value:.4f}" + ("" if spread is None else f" ± {spread:.4f}")


def append(lines: Sequence[str], path: Path = RESULTS) -> list[str]:
    """Add the rows that the file does not hold yet; return those."""
    text = path.read_text()
    known = {_key(line) for line in text.splitlines() if line.startswith("| ")}
    fresh = [line for line in lines if _key(line) not in known]
    path.write_text(text + "".join(f"{line}\n" for line in fresh))
    return fresh


def _key(line: str) -> tuple[str, ...]:
    """Return what a row is about: all but its date and figures."""
    return tuple(cell.strip() for cell in line.split("|")[2:7])

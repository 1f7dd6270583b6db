"""What an arm of one seed came to, image by image: JSON that is committed and never made again.

    study/DATA/images.json    the images' groups and the hidden part's public half, without names
    study/DATA/ARM-seedK.json scores of images in the order of their names, rules, what it took

The hidden part is scored here and nowhere else, when a record is made; a record that is there is
left as it is. `half` is threshold .5, `final` is what the arm's road ends at: rules tuned out of
fold (cross-fitted there, then applied to the hidden part), or areas set by hand.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import quality_stats as stats
import study_arms as arms
import study_train
from numpy.typing import NDArray
from quality_rows import FOLDS
from quality_train import Place
from study_arms import Arm

from kagflow import durable
from kagflow.infer.postprocess import ClassRule, apply
from kagflow.learn.evidence import gather
from kagflow.learn.oof import OofReader
from kagflow.learn.search import count_rules, search
from kagflow.task import metric as metrics
from kagflow.task.folds import make_clusters, read_folds
from kagflow.task.index import build_index
from kagflow.task.labels import read_labels, rows_by_image
from kagflow.task.table import read_table

DIGITS = 5
PUBLIC = "Public"
Counts = Mapping[str, NDArray[np.int64]]
Truth = Mapping[str, Mapping[int, str]]


def path_of(data: str, arm: str, seed: int) -> Path:
    """Return where a record is."""
    return arms.KEPT / data / f"{arm}-seed{seed}.json"


def read(data: str, arm: str, seed: int) -> dict[str, Any]:
    """Return a record."""
    return dict(json.loads(path_of(data, arm, seed).read_text()))


def there(data: str, arm: str, seed: int) -> bool:
    """Tell whether a record is there."""
    return path_of(data, arm, seed).is_file()


def images_of(data: str) -> dict[str, Any]:
    """Return groups, the public half and floors of a data set's images."""
    return dict(json.loads((arms.KEPT / data / "images.json").read_text()))


def make(place: Place, name: str, seed: int) -> Path:
    """Score an arm whose trainings are in the workspace, unless that is done; return its record."""
    data, arm = place.arena.name, arms.ARMS[name]
    path = path_of(data, name, seed)
    if path.is_file():
        return path
    took = {one: study_train.told(place, one, seed) for one in arm.trainings}
    if not all(took.values()):
        raise ValueError(f"{data} {name} seed {seed}: its trainings are not in the workspace")
    metric = metrics.load(place.spec)
    inside, clusters, rules = _out_of_fold(place, arm, seed)
    outside, groups, public = _hidden(place, arm, seed, rules)
    images = {"oof": _small(clusters), "hidden": _small(groups), "public": public}
    images["floor"] = {
        where: round(float(stats.per_image(_nothing(one["half"]), metric).mean()), DIGITS)
        for where, one in (("oof", inside), ("hidden", outside))
    }
    _same_images(data, images)
    scores = {
        where: {
            way: np.round(stats.per_image(counts, metric), DIGITS).tolist()
            for way, counts in one.items()
        }
        for where, one in (("oof", inside), ("hidden", outside))
    }
    dice = {
        where: {way: round(stats.nonempty(one[way], metric), DIGITS) for way in one}
        for where, one in (("oof", inside), ("hidden", outside))
    }
    value = {"data": data, "arm": name, "seed": seed, "trainings": took, "dice": dice}
    value["rules"] = [asdict(rule) for rule in rules]
    value["empty"] = all(rule.empty for rule in rules)
    durable.write_text(path, json.dumps(value | scores) + "\n")
    return path


def _out_of_fold(
    place: Place, arm: Arm, seed: int
) -> tuple[Counts, NDArray[np.int64], Sequence[ClassRule]]:
    folds = read_folds(place.data / "folds.csv")
    clusters = {name: cluster for name, (cluster, _) in folds.items()}
    truth = read_labels(place.data / place.spec.train_csv, place.spec, only=clusters)
    with ExitStack() as stack:
        stores = [stack.enter_context(OofReader(one)) for one in _stores(place, arm, seed, "oof")]
        members = [dict.fromkeys(one.image_ids, one) for one in stores]
        seen = gather(members, truth, place.spec, clusters=clusters)
        half = count_rules(seen, _half(place, arm))
        if arm.by_hand:
            hand = _by_hand(place)
            final = _applied(stores, seen.image_ids, truth, hand)
            return {"half": half, "final": final}, seen.clusters, hand
    found = search(seen, metrics.load(place.spec))
    return {"half": half, "final": found.outside}, seen.clusters, found.rules


def _hidden(
    place: Place, arm: Arm, seed: int, rules: Sequence[ClassRule]
) -> tuple[Counts, NDArray[np.int64], list[int]]:
    table = read_table(place.hidden / "solution.csv")
    truth = rows_by_image(table, place.spec)
    usage = dict(zip(table.column("ImageId"), table.column("Usage"), strict=True))
    rows = build_index(place.hidden / "hidden" / place.spec.test_images)
    names = [row.image_id for row in rows]
    groups = make_clusters(rows, limit=max(len(names) // (2 * FOLDS), 32))
    with ExitStack() as stack:
        found = _stores(place, arm, seed, "hidden")
        stores = [stack.enter_context(OofReader(one)) for one in found]
        counts = {
            way: _applied(stores, names, truth, one)
            for way, one in (("half", _half(place, arm)), ("final", rules))
        }
    return counts, np.array(groups, np.int64), [int(usage[name] == PUBLIC) for name in names]


def _stores(place: Place, arm: Arm, seed: int, name: str) -> list[Path]:
    end = study_train.ONE_VIEW if arm.one_view else ""
    return [study_train.folder_of(place, one, seed) / f"{name}{end}" for one in arm.trainings]


def _applied(
    stores: Sequence[OofReader], names: Iterable[str], truth: Truth, rules: Sequence[ClassRule]
) -> NDArray[np.int64]:
    """Count masks under rules, (3, N, C), by the code that the kernel runs."""
    masks = [one for one in stores if one.predicts == "mask"]
    gates = [one for one in stores if one.predicts == "label"]
    counts = []
    for name in names:
        probs = np.mean([one.mask(name) for one in masks], axis=0)
        gate = np.mean([one.label(name) for one in gates], axis=0) if gates else None
        counts.append(stats.count_masks(apply(probs, gate, rules), truth.get(name, {})))
    return np.stack(counts, axis=1)


def _half(place: Place, arm: Arm) -> list[ClassRule]:
    """Return threshold .5 for masks, and for a gate where there is one."""
    gated = any(arms.TRAININGS[one].recipe for one in arm.trainings)
    return [ClassRule(gate=0.5 if gated else 0.0)] * len(place.spec.classes)


def _by_hand(place: Place) -> list[ClassRule]:
    return [ClassRule(min_area=area) for area in arms.AREAS[place.arena.name]]


def _nothing(counts: NDArray[np.int64]) -> NDArray[np.int64]:
    return np.stack([np.zeros_like(counts[2])] * 2 + [counts[2]])


def _small(groups: NDArray[np.int64]) -> list[int]:
    """Number groups in the order in which they first occur."""
    known: dict[int, int] = {}
    return [known.setdefault(int(one), len(known)) for one in groups]


def _same_images(data: str, found: dict[str, Any]) -> None:
    path = arms.KEPT / data / "images.json"
    if not path.is_file():
        durable.write_text(path, json.dumps(found) + "\n")
    elif images_of(data) != found:
        raise ValueError(f"{data}: the workspace holds other images than {path.name} tells of")

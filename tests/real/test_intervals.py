"""On real out-of-fold predictions: does the interval that is said hold what other images score?

A small model is trained on every fold; then the images are halved by near-duplicate cluster, 200
times. The rules are tuned on one half, whose cross-fitted scores say where the other half's score
will lie with 90 of 100; the other half is scored by those rules.
"""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from kagflow.cli.app import main
from kagflow.config import load_competition
from kagflow.learn.evidence import Evidence, gather, open_member
from kagflow.learn.search import count_rules, search
from kagflow.learn.shakeup_sampling import Paired, predict_interval
from kagflow.rehearse import server
from kagflow.task import metric as metrics
from kagflow.task.folds import read_folds
from kagflow.task.labels import read_labels

pytestmark = [pytest.mark.real, pytest.mark.timeout(1500)]
COMPETITIONS = Path(__file__).parents[1] / "competitions"
HALVINGS = 200


def take(evidence: Evidence, rows: np.ndarray) -> Evidence:
    """Return what is known of some images, `rows` (N,) bool."""
    pieces = evidence.components
    if pieces is not None:
        kept = [rows[evidence.active(at)] for at in range(len(pieces))]
        pieces = tuple(
            one._replace(predicted=one.predicted[some], intersection=one.intersection[some])
            for one, some in zip(pieces, kept, strict=True)
        )
    return replace(
        evidence,
        image_ids=tuple(np.array(evidence.image_ids)[rows]),
        clusters=evidence.clusters[rows],
        true=evidence.true[rows],
        predicted=evidence.predicted[rows],
        intersection=evidence.intersection[rows],
        gate=None if evidence.gate is None else evidence.gate[rows],
        components=pieces,
    )


def image_scores(metric, counts: np.ndarray) -> np.ndarray:
    found = metric(*counts)
    return found.mean(axis=1) if found.ndim > 1 else found


def halve(evidence: Evidence, metric, seed: int) -> tuple[bool, float]:
    """Tune on one half and say where the other lies: whether it does, and by how much it is off."""
    rng = np.random.default_rng(seed)
    clusters = rng.permutation(np.unique(evidence.clusters))
    chosen = np.isin(evidence.clusters, clusters[: len(clusters) // 2])
    tune, other = take(evidence, chosen), take(evidence, ~chosen)
    found = search(tune, metric)
    scores = image_scores(metric, found.outside)
    paired = Paired(scores[None], tune.clusters)
    parts = int(found.parts.max()) + 1
    ((low, high),) = predict_interval(
        paired, len(other.clusters), parts=parts, draws=400, seed=seed
    )
    score = float(image_scores(metric, count_rules(other, found.rules)).mean())
    return bool(low <= score <= high), score - float(scores.mean())


def evidence_of(home: Path, name: str, run: str) -> tuple[Evidence, object]:
    """Read all finished folds of a run: what thresholds and areas would leave of each image."""
    spec = load_competition(COMPETITIONS / name).task()
    data = home / "data" / name
    clusters = {image: cluster for image, (cluster, _) in read_folds(data / "folds.csv").items()}
    truth = read_labels(data / spec.train_csv, spec, only=clusters)
    folds = sorted(file.parent for file in (home / "runs" / name / run).glob("fold*/run.json"))
    return gather([open_member(folds)], truth, spec, clusters=clusters), metrics.load(spec)


@pytest.mark.parametrize(
    ("name", "recipe", "size"),
    [("neu_steel", "unet", "[64,64]"), ("magnetic_tile", "fpn", "[96,96]")],
)
def test_nine_of_ten_intervals_hold_the_other_half(
    name, recipe, size, shared_data, tmp_path, monkeypatch, capsys
) -> None:
    monkeypatch.chdir(tmp_path)
    shutil.copytree(COMPETITIONS / name, tmp_path / "competitions" / name)
    data = shared_data / name.replace("_", "-")
    try:
        for words in (
            ["local", "add", name, "--data", str(data), "--holdout", "0.3"],
            ["fetch", name],
            ["train", name, f"recipe={recipe}", "fold=all", f"size={size}", "epochs=3", "name=r"],
        ):
            with pytest.raises(SystemExit) as stopped:
                main(["--quiet", "--profile", "local", *words])
            assert not stopped.value.code
    finally:
        server.stop(tmp_path / ".kagflow" / "local" / "kaggle")
    evidence, metric = evidence_of(tmp_path / ".kagflow" / "local", name, "r")
    halvings = [halve(evidence, metric, seed) for seed in range(HALVINGS)]
    held, off = (float(np.mean(one)) for one in zip(*halvings, strict=True))
    with capsys.disabled():
        print(
            f"\n{name}: {len(evidence.image_ids)} images in {len(set(evidence.clusters.tolist()))} "
            f"groups; of {HALVINGS} halvings {held:.1%} held, off by {off:+.4f} on average"
        )
    assert 0.85 <= held <= 0.95

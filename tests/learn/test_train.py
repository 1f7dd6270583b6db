"""A whole fold: what stands in the run folder, and what is refused."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from kagflow.errors import LocalError, RefusedError, UsageError
from kagflow.infer.engine import Settings, predict
from kagflow.infer.models import build_model
from kagflow.infer.postprocess import ClassRule
from kagflow.learn.job import Job
from kagflow.learn.oof import FLOOR, OofReader
from kagflow.learn.train import train, train_fold
from kagflow.task.folds import read_folds
from kagflow.task.labels import read_labels
from kagflow.task.rle import decode


def test_a_run_folder_is_whole(squares, spec, recipe, run_dir):
    seen = []
    result = train_fold(run_dir, recipe(), spec, squares, fold=0, on_epoch=seen.append)
    run = json.loads((run_dir / "run.json").read_text())
    assert (run["competition"], run["name"], run["fold"], run["folds"]) == ("squares", "tiny", 0, 2)
    assert run["finished"]
    assert run["profile"] == "local"
    assert result.score == run["score"]
    assert result.images == 12
    assert 0 < result.floor < 1
    assert run["seconds_per_image"] > 0
    lines = [json.loads(line) for line in (run_dir / "metrics.jsonl").read_text().splitlines()]
    assert lines == seen
    assert [line["epoch"] for line in lines] == [0, 1, 2]
    assert {"loss", "lr", "images_per_second", "wait_share", "val_score"} <= set(lines[0])
    provenance = json.loads((run_dir / "provenance.json").read_text())
    assert len(provenance["code"]) == 64
    assert provenance["packages"]["torch"] == torch.__version__.split("+")[0]
    weights = load_file(run_dir / "best.safetensors")
    assert weights["head.weight"].dtype == torch.float32
    # Neither optimiser nor schedule: what ships is made of this file alone.
    assert set(weights) == set(build_model(recipe()["model"], classes=2).state_dict())
    with OofReader(run_dir / "oof") as store:
        assert sorted(store.image_ids) == [f"{n:03}.png" for n in range(0, 24, 2)]
        assert store.mask("000.png").shape == (2, 64, 64)


def test_the_score_is_the_metric_on_the_stored_probabilities(squares, spec, recipe, run_dir):
    result = train_fold(run_dir, recipe(epochs=8), spec, squares, fold=0)
    truth, scores = read_labels(squares / "train.csv", spec), []
    with OofReader(run_dir / "oof") as store:
        for name in store.image_ids:
            predicted = store.mask(name) >= 0.5
            for index in range(2):
                true = decode(truth.get(name, {}).get(index, ""), 64, 64) > 0
                both, total = (predicted[index] & true).sum(), predicted[index].sum() + true.sum()
                scores.append(2 * both / total if total else 1.0)
    assert result.score == pytest.approx(np.mean(scores), abs=1e-12)


def test_the_store_says_what_the_kernels_engine_says_at_the_images_own_size(
    squares, spec, recipe, run_dir
):
    job = Job(run_dir, recipe(size=[40, 48], epochs=6), spec, squares, 0, "cpu")
    train(job)
    folds = read_folds(squares / "folds.csv")
    names = [name for name, (_, fold) in folds.items() if fold == 0]
    files = [(name, squares / "train_images" / name) for name in names]
    settings = Settings(keep_probs=True)
    rules = [ClassRule()] * 2
    found = {
        one.image_id: one for one in predict([job.member], rules, spec, files, settings=settings)
    }
    with OofReader(run_dir / "oof") as store:
        assert sorted(store.image_ids) == sorted(names)
        for name in names:
            ours, kernels = store.mask(name), found[name].masks
            assert ours.shape == kernels.shape == (2, 64, 64)
            # Half a step of 255, or the haze that is kept as nothing, and what float16 rounds.
            assert np.abs(ours - kernels).max() < (FLOOR - 0.5) / 255 + 1e-4
        assert max(one.masks.max() for one in found.values()) > 4 * FLOOR / 255


def test_eight_images_are_learnt_by_heart(squares, spec, recipe, run_dir):
    model = {"target": "tiny_models:TinyNet", "kwargs": {"dropout": 0.0}}
    changes = {"model": model, "epochs": 40, "loss": {"target": "bce_dice", "kwargs": {}}}
    changes |= {"sampler": {"target": "balanced", "kwargs": {}}, "samples": 32, "batch": 8}
    result = train_fold(run_dir, recipe(**changes), spec, squares, fold=0)
    assert result.score > max(0.9, result.floor + 0.2)


def test_a_gate_learns_labels_of_a_segmentation(squares, spec, recipe, run_dir):
    model = {"target": "tiny_models:TinyNet", "kwargs": {"predicts": "label", "dropout": 0.0}}
    changes = {"predicts": "label", "model": model, "epochs": 80, "batch": 6}
    result = train_fold(run_dir, recipe(**changes), spec, squares, fold=0)
    assert result.score > result.floor + 0.2
    with OofReader(run_dir / "oof") as store:
        assert store.label("000.png").shape == (2,)


def test_a_finished_run_is_left_alone(squares, spec, recipe, run_dir):
    first = train_fold(run_dir, recipe(), spec, squares, fold=0)
    before = (run_dir / "best.safetensors").stat().st_mtime_ns
    again = train_fold(run_dir, recipe(), spec, squares, fold=0)
    assert (first.fresh, again.fresh) == (True, False)
    assert again.score == first.score
    assert (run_dir / "best.safetensors").stat().st_mtime_ns == before


def test_another_recipe_or_other_data_is_refused_by_name(squares, spec, recipe, run_dir):
    train_fold(run_dir, recipe(epochs=1), spec, squares, fold=0)
    changed = recipe(epochs=2)
    changed["optimiser"]["lr"] = 0.5
    with pytest.raises(
        RefusedError, match=r"recipe\.epochs: 1 there, 2 now; recipe\.optimiser\.lr"
    ):
        train_fold(run_dir, changed, spec, squares, fold=0)
    (squares / "manifest.json").write_text("{}")
    with pytest.raises(RefusedError, match="data: "):
        train_fold(run_dir, recipe(epochs=1), spec, squares, fold=0)


def test_a_wrong_fold_device_or_precision_says_so(squares, spec, recipe, run_dir):
    with pytest.raises(UsageError, match="fold 2 is out of range"):
        train_fold(run_dir, recipe(), spec, squares, fold=2)
    with pytest.raises(UsageError, match="fp16 needs a GPU"):
        train_fold(
            run_dir.with_name("fold1"), recipe(precision="fp16"), spec, squares, fold=1,
            device="cpu",
        )  # fmt: skip
    if not torch.cuda.is_available():
        with pytest.raises(LocalError, match="no CUDA device"):
            train_fold(run_dir, recipe(), spec, squares, fold=0, device="cuda")

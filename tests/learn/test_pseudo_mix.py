"""Mixing: a capped share of each step, targets that stay soft, labelled samples as they were."""

from __future__ import annotations

import json
import math
import signal
from dataclasses import replace

import cv2
import numpy as np
import pytest
import torch
import yaml
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file

from kagflow import durable
from kagflow.learn import pseudo
from kagflow.learn.job import Job, read_fold
from kagflow.learn.oof import OofReader, OofWriter
from kagflow.learn.prepare import prepare
from kagflow.learn.pseudo_mix import Mix
from kagflow.learn.sampler import Draw
from kagflow.learn.train import train, train_fold
from kagflow.progress import QUIET

CPU = torch.device("cpu")
TEST = [f"{number:03}.png" for number in range(5)]


@pytest.fixture
def job(squares, spec, recipe, run_dir):
    """Return a maker of jobs for fold 0 whose store is there: five test images, by name as others.

    What the store says is a ramp, so that every value shows.
    """
    rng = np.random.default_rng(3)
    (squares / "test_images").mkdir()
    for name in TEST:
        pixels = rng.integers(0, 255, (64, 64), np.uint8)
        cv2.imwrite(str(squares / "test_images" / name), pixels)

    def make(name="student", predicts="mask", **changes):
        folder = run_dir.parents[1] / name / "fold0"
        store = pseudo.stores(folder) / f"by-hand-{predicts}"
        if not store.exists():
            ramp = np.linspace(0, 1, 64 * 64, dtype=np.float32).reshape(64, 64)
            with OofWriter(store / "probs", predicts, 2) as out:
                for at, image in enumerate(TEST):
                    masks = np.stack([ramp / (at + 1), 1 - ramp])
                    out.add(image, masks if predicts == "mask" else masks[:, at, at], 64, 64)
            durable.write_json(store / "pseudo.json", {"images": 5, "left_out": {"torn.png": ""}})
        if changes.get("pseudo", "default"):
            durable.write_json(folder / "pseudo.json", {"store": store.name})
        none = {"target": "none", "kwargs": {}}
        asked = {"pseudo": "default", "pseudo_share": 0.25, "augment": none} | changes
        return Job(folder, recipe(predicts=predicts, **asked), spec, squares, 0, "cpu")

    return make


def plan_of(job):
    return prepare(job, read_fold(job, QUIET), CPU, fresh=True)[1]


def mix(known, others, batch, accumulate, share, seed=0):
    return Mix([None] * (known + others), known, batch, accumulate, share, seed)


@given(
    batch=st.integers(1, 24),
    accumulate=st.integers(1, 4),
    share=st.floats(0.01, 0.5),
    samples=st.integers(1, 200),
)
def test_no_step_has_more_than_its_share_and_no_whole_one_less(batch, accumulate, share, samples):
    places = mix(samples, 9, batch, accumulate, share).places(samples)
    step = batch * accumulate
    for start in range(0, samples, step):
        size = min(step, samples - start)
        count = sum(start <= place < start + step for place in places)
        assert count <= share * size + 1e-6
        if size == step:
            assert count == math.floor(share * step + 1e-9)
    for start in range(0, samples, batch):
        inside = [place for place in places if start <= place < start + batch]
        assert inside == list(
            range(min(start + batch, samples) - len(inside), min(start + batch, samples))
        )


def test_draws_are_of_seed_and_epoch_alone_and_take_every_image_in_turn():
    known = [Draw(at % 30, at, centred=True) for at in range(80)]
    drawn = mix(30, 20, 8, 1, 0.25).draws(known, 3)
    assert drawn == mix(30, 20, 8, 1, 0.25).draws(known, 3)
    assert drawn != mix(30, 20, 8, 1, 0.25).draws(known, 4)
    assert drawn != mix(30, 20, 8, 1, 0.25, seed=1).draws(known, 3)
    others = [draw for draw in drawn if draw.image >= 30]
    assert sorted(draw.image for draw in others) == list(range(30, 50))
    assert not any(draw.centred for draw in others)
    assert [a for a, b in zip(drawn, known, strict=True) if a.image < 30] == [
        b for a, b in zip(drawn, known, strict=True) if a.image < 30
    ]


def test_labelled_samples_come_as_they_do_without_others(job):
    plain, mixed = plan_of(job("plain", pseudo=None)), plan_of(job())
    draws = [draw for draw in mixed.draws(0) if draw.image < 12]
    assert draws
    ours = mixed.data.finish(mixed.data.batch(draws))
    theirs = plain.data.finish(plain.data.batch(draws))
    assert set(ours) == set(theirs)
    for name in ours:
        assert torch.equal(ours[name], theirs[name].float())


def test_the_others_bring_their_own_pixels_and_probabilities(job):
    asked = job()
    plan = plan_of(asked)
    draws = [draw for draw in plan.draws(0) if draw.image >= 12]
    # 12 samples in batches of 4: one each.
    assert len(draws) == 3
    done = plan.data.finish(plan.data.batch(draws))
    store = OofReader(pseudo.noted_store(asked.run_dir) / "probs")
    for at, draw in enumerate(draws):
        name = TEST[draw.image - 12]
        said = store.quantised(name)
        assert torch.equal(done["mask"][at], torch.from_numpy(said) / 255)
        assert done["label"][at].tolist() == pytest.approx(said.max(axis=(1, 2)) / 255)
        pixels = cv2.imread(str(asked.data / "test_images" / name), cv2.IMREAD_GRAYSCALE)
        single = plan.data[draw]
        assert torch.equal(done["image"][at], single["image"])
        assert plan.data.cache.image(int(plan.data.rows[draw.image])).tolist() == pixels.tolist()


def test_a_crop_is_of_image_and_probabilities_alike(job):
    plan = plan_of(job(crop=[16, 16]))
    draw = next(draw for draw in plan.draws(0) if draw.image >= 12)
    row = int(plan.data.rows[draw.image])
    image, soft = plan.data.pixels(row, draw)
    whole, probs = plan.data.cache.image(row), plan.data.cache.mask(row)
    found = [
        (top, left)
        for top in range(49)
        for left in range(49)
        if np.array_equal(whole[top : top + 16, left : left + 16], image)
    ]
    ((top, left),) = found
    assert np.array_equal(probs[top : top + 16, left : left + 16], soft)
    label = plan.data.finish(plan.data.batch([draw]))["label"][0]
    assert label.tolist() == pytest.approx(soft.max(axis=(0, 1)) / 255)


def test_a_lone_class_stays_soft(squares, spec, recipe, run_dir, job):
    asked = job()
    one = replace(asked, spec=replace(spec, classes=("1",)))
    store = pseudo.stores(asked.run_dir) / "lone"
    with OofWriter(store / "probs", "mask", 1) as out:
        out.add(TEST[0], np.full((1, 64, 64), 0.4, np.float32), 64, 64)
    durable.write_json(store / "pseudo.json", {"images": 1, "left_out": {}})
    durable.write_json(asked.run_dir / "pseudo.json", {"store": "lone"})
    lines = (squares / "train.csv").read_text().splitlines()
    (squares / "train.csv").write_text("\n".join(x for x in lines if ",2," not in x) + "\n")
    plan = plan_of(one)
    done = plan.data.finish(plan.data.batch(plan.draws(0)[:4]))
    assert done["mask"].shape == (4, 1, 64, 64)
    assert done["mask"][3].unique().tolist() == pytest.approx([0.4])
    assert set(done["mask"][:3].unique().tolist()) <= {0.0, 1.0}


def test_a_classifier_learns_the_label_that_was_said(job):
    model = {"target": "tiny_models:TinyNet", "kwargs": {"predicts": "label"}}
    for crop in (None, [32, 32]):
        asked = job(f"gate{crop}", "label", model=model, crop=crop)
        plan = plan_of(asked)
        batch = plan.data.finish(plan.data.batch(plan.draws(0)[:4]))
        store = OofReader(pseudo.noted_store(asked.run_dir) / "probs")
        name = TEST[plan.draws(0)[3].image - 12]
        assert batch["label"][3].tolist() == pytest.approx(store.label(name).tolist())
        assert set(batch["label"][:3].unique().tolist()) <= {0.0, 1.0}
        assert train_fold(asked.run_dir, asked.recipe, asked.spec, asked.data, fold=0).score


def test_a_run_says_what_it_learnt_from_and_differs_from_one_without(job):
    runs = {name: job(name, **changes) for name, changes in (("a", {}), ("b", {"pseudo": None}))}
    for asked in runs.values():
        train(asked)
    told = {
        name: json.loads((asked.run_dir / "run.json").read_text())["pseudo"]
        for name, asked in runs.items()
    }
    assert told == {"a": {"images": 5, "left_out": 1}, "b": None}
    weights = [load_file(one.run_dir / "best.safetensors") for one in runs.values()]
    assert any(not torch.equal(weights[0][key], weights[1][key]) for key in weights[0])
    oof = OofReader(runs["a"].run_dir / "oof")
    assert sorted(oof.image_ids) == [f"{number:03}.png" for number in range(0, 24, 2)]


@pytest.mark.parametrize("workers", [0, 2])
def test_a_stopped_run_ends_with_the_bits_of_an_unbroken_one(job, stop_at, workers):
    changes = {"accumulate": 2, "batch": 2, "workers": workers, "epochs": 3}
    whole, broken = job("whole", **changes), job("broken", **changes)
    train(whole)
    for step in (1, 3, 4):
        with pytest.raises(KeyboardInterrupt):
            train(broken, stop_at(step, signal.SIGTERM))
    train(broken)
    ours, theirs = (load_file(one.run_dir / "best.safetensors") for one in (whole, broken))
    assert all(torch.equal(ours[key], theirs[key]) for key in ours)


def test_a_run_begun_before_there_were_pseudo_labels_is_still_the_same(job):
    asked = job("old", pseudo=None, pseudo_share=None)
    train(asked)
    path = asked.run_dir / "config.yaml"
    before = yaml.safe_load(path.read_text())
    del before["recipe"]["pseudo"], before["recipe"]["pseudo_share"]
    path.write_text(yaml.safe_dump(before))
    assert not train(asked).fresh

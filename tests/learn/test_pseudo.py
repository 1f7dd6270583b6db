"""Pseudo-labels: who may speak, of which images, and that what is said stays soft."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace

import cv2
import numpy as np
import pytest

from kagflow import durable
from kagflow.errors import DataError, RefusedError, UsageError
from kagflow.infer.engine import Prediction, load_member, members_from_config, predict_probs
from kagflow.infer.postprocess import ClassRule
from kagflow.learn import pseudo
from kagflow.learn.ensemble import Wish, build_ensemble
from kagflow.learn.job import Job
from kagflow.learn.oof import OofReader, quantise
from kagflow.learn.train import train_fold
from kagflow.task.index import build_index, write_index

HELD_OUT, TRAINED = "000.png", "001.png"


@pytest.fixture
def world(squares, spec, recipe, run_dir):
    """Return a competition with test images, and what makes runs, ensembles and jobs there."""

    class World:
        data, home, runs = squares, run_dir.parents[3], run_dir.parents[1]

        def __init__(self):
            rng, folder = np.random.default_rng(1), squares / "test_images"
            folder.mkdir()
            for number in range(6):
                image = rng.normal(110, 12, (64, 64))
                image[8:30, 8 + 4 * number : 20 + 4 * number] += 70
                cv2.imwrite(str(folder / f"{number:03}.png"), np.clip(image, 0, 255).astype("u1"))
            # As they come back from an image viewer: the same to the eye, not to a hash.
            for name, twin in ((HELD_OUT, "held.jpg"), (TRAINED, "seen.jpg")):
                image = cv2.imread(str(squares / "train_images" / name))
                cv2.imwrite(str(folder / twin), image, [cv2.IMWRITE_JPEG_QUALITY, 95])
            (folder / "torn.png").write_bytes(b"no image")
            write_index(squares / "index.csv", build_index(squares / "train_images"))

        def train(self, name, *folds, **changes):
            folders = []
            for fold in folds:
                place = fold if fold == "full" else f"fold{fold}"
                folders.append(self.runs / name / place)
                train_fold(folders[-1], recipe(epochs=1, **changes), spec, squares, fold=fold)
            return folders

        def join(self, runs, name="default"):
            built = build_ensemble(runs, spec, squares, home=self.home, wish=Wish(name))
            return self.keep(name, built.value)

        def keep(self, name, value):
            path = self.home / "ensembles" / "squares" / f"{name}.json"
            durable.write_json(path, value)
            return path

        def job(self, fold=0, **changes):
            place = fold if fold == "full" else f"fold{fold}"
            made = recipe(epochs=2, pseudo="default", pseudo_share=0.25) | changes
            return Job(self.runs / "student" / place, made, spec, squares, fold, "cpu")

    return World()


@pytest.fixture
def taught(world):
    """Return the world with a default ensemble of a run's two folds and its training on all."""
    world.join({"tiny": world.train("tiny", "full", 0, 1)})
    return world


def note_of(store):
    return json.loads((store / "pseudo.json").read_text())


@pytest.mark.parametrize(
    ("fold", "heard"), [(0, ["fold0"]), (1, ["fold1"]), ("full", ["fold0", "fold1"])]
)
def test_only_models_that_held_the_fold_out_speak(taught, fold, heard):
    store = pseudo.ensure(taught.job(fold), "cpu")
    found = [f"runs/squares/tiny/{place}/best.safetensors" for place in heard]
    assert note_of(store)["models"] == found


def test_what_is_said_is_the_mean_of_those_models_and_soft(taught, spec):
    store = pseudo.ensure(taught.job(1), "cpu")
    value = json.loads((taught.home / "ensembles/squares/default.json").read_text())
    (member,), _, _ = members_from_config(value, taught.home)
    alone = replace(member, weights=member.weights[1:2])
    file = taught.data / "test_images" / "003.png"
    (found,) = predict_probs(alone, load_member(alone, 2, "cpu"), [(file.name, file)])
    said = OofReader(store / "probs").quantised("003.png")
    assert np.abs(said.astype(int) - quantise(found.probs).astype(int)).max() <= 1
    assert len(np.unique(said)) > 10


def test_no_image_that_looks_like_a_held_out_one_is_learnt_from(taught):
    for fold, out, kept in ((0, "held.jpg", "seen.jpg"), (1, "seen.jpg", "held.jpg")):
        store = pseudo.ensure(taught.job(fold), "cpu")
        ids, left_out = OofReader(store / "probs").image_ids, note_of(store)["left_out"]
        assert kept in ids
        assert out not in ids
        assert left_out[out] == "looks like an image that is held out"
        assert "not a whole image" in left_out["torn.png"]
        assert len(ids) == 7 == note_of(store)["images"]
    assert set(OofReader(pseudo.ensure(taught.job("full"), "cpu") / "probs").image_ids) >= {
        "held.jpg",
        "seen.jpg",
    }


def test_where_nothing_is_left_it_says_so(taught):
    folder = taught.data / "test_images"
    for file in folder.iterdir():
        if file.name != "held.jpg":
            file.unlink()
    with pytest.raises(DataError, match="no image is left"):
        pseudo.ensure(taught.job(0), "cpu")


def test_a_run_stays_with_the_store_it_began_with(taught):
    job = taught.job()
    store = pseudo.ensure(job, "cpu")
    before = (store / "probs" / "maps.bin").stat().st_mtime_ns
    taught.join({"other": taught.train("other", 0, 1, seed=5)})
    assert pseudo.ensure(job, "cpu") == store
    assert (store / "probs" / "maps.bin").stat().st_mtime_ns == before
    # Another run begins with what the ensemble says now.
    fresh = replace(job, run_dir=taught.runs / "fresh" / "fold0")
    assert pseudo.ensure(fresh, "cpu") != store
    shutil.rmtree(store)
    with pytest.raises(RefusedError, match="are gone"):
        pseudo.ensure(job, "cpu")


def test_a_lost_store_comes_again_from_the_same_ensemble(taught):
    job = taught.job()
    store = pseudo.ensure(job, "cpu")
    said = (store / "probs" / "maps.bin").read_bytes()
    shutil.rmtree(store)
    assert pseudo.ensure(job, "cpu") == store
    assert (store / "probs" / "maps.bin").read_bytes() == said


def test_what_a_kill_left_is_swept(taught):
    job = taught.job()
    store = pseudo.ensure(job, "cpu")
    said = (store / "probs" / "maps.bin").read_bytes()
    (store / "pseudo.json").unlink()
    (store / "probs" / "maps.bin").write_bytes(b"torn")
    stray = store.parent / f".{store.name}.abcd.staging"
    stray.mkdir()
    assert pseudo.ensure(job, "cpu") == store
    assert (store / "probs" / "maps.bin").read_bytes() == said
    assert not stray.exists()


def test_another_size_and_another_fold_have_stores_of_their_own(taught):
    stores = {pseudo.ensure(taught.job(fold), "cpu") for fold in (0, 1)}
    small = replace(taught.job(0, size=[32, 48]), run_dir=taught.runs / "small" / "fold0")
    stores.add(pseudo.ensure(small, "cpu"))
    assert len(stores) == 3
    assert OofReader(pseudo.ensure(small, "cpu") / "probs").quantised("000.png").shape[1:] == (
        32,
        48,
    )


def test_the_same_fold_of_two_runs_shares_one_store(taught, monkeypatch):
    store = pseudo.ensure(taught.job(), "cpu")
    monkeypatch.setattr(pseudo, "predict", None)
    twin = replace(taught.job(), run_dir=taught.runs / "twin" / "fold0")
    assert pseudo.ensure(twin, "cpu") == store


def test_what_cannot_teach_is_told_before_anything_is_predicted(taught):
    path = taught.home / "ensembles/squares/default.json"
    value = json.loads(path.read_text())
    with pytest.raises(UsageError, match="no ensemble 'defalt'") as caught:
        pseudo.ensure(taught.job(pseudo="defalt"), "cpu")
    assert "default" in caught.value.hint
    with pytest.raises(UsageError, match="no member that predicts 'label'"):
        pseudo.ensure(taught.job(predicts="label"), "cpu")
    (member,) = value["members"]
    taught.keep("half", value | {"members": [member | {"weights": member["weights"][1:2]}]})
    with pytest.raises(UsageError, match="no model of ensemble 'half' held out fold 0") as caught:
        pseudo.ensure(taught.job(pseudo="half"), "cpu")
    assert "train fold=0 of tiny" in caught.value.hint
    # All that is left for fold 0 was trained on everything, fold 0 among it.
    taught.keep("all", value | {"members": [member | {"weights": member["weights"][2:]}]})
    with pytest.raises(UsageError, match="held out fold 0"):
        pseudo.ensure(taught.job(pseudo="all"), "cpu")
    taught.keep("old", value | {"data": "another"})
    with pytest.raises(UsageError, match="other data"):
        pseudo.ensure(taught.job(pseudo="old"), "cpu")
    assert not (taught.home / "pseudo").exists()


def test_the_gate_s_veto_is_a_zero(world):
    rules = [ClassRule(gate=0.6), ClassRule()]
    one = Prediction(
        "a.png", {}, np.full((2, 8, 8), 0.7, np.float32), np.array([0.5, 0.1], np.float32)
    )
    said = pseudo.said(world.job(), one, rules, (8, 8))
    assert (said[0] == 0).all()
    assert (said[1] == np.float32(0.7)).all()
    nothing = Prediction("a.png", {}, None, np.zeros(2, np.float32))
    assert pseudo.said(world.job(size=[4, 6]), nothing, rules, (8, 8)).shape == (2, 4, 6)


def test_a_thin_defect_keeps_its_share_when_made_smaller(world):
    probs = np.zeros((2, 64, 64), np.float32)
    probs[0, :, 31] = 1
    said = pseudo.said(
        world.job(size=[16, 16]), Prediction("a.png", {}, probs), [ClassRule()] * 2, (64, 64)
    )
    assert said[0].mean() == pytest.approx(probs[0].mean())


def test_a_class_tuned_to_nothing_is_taught_as_it_looks(taught):
    """The rule `empty` is about the metric; only a gate has looked at the image."""
    value = json.loads((taught.home / "ensembles/squares/default.json").read_text())
    empty = value | {"rules": [rule | {"empty": True} for rule in value["rules"]]}
    taught.keep("empty", empty)
    store = pseudo.ensure(taught.job(pseudo="empty"), "cpu")
    assert any(OofReader(store / "probs").quantised(f"{n:03}.png").any() for n in range(6))


def test_a_gate_learns_from_the_gates_alone(taught, recipe):
    gate = {
        "predicts": "label", "loss": {"target": "bce", "kwargs": {}},
        "model": {"target": "tiny_models:TinyNet", "kwargs": {"predicts": "label"}},
    }  # fmt: skip
    folders = taught.train("gate", 0, 1, **gate)
    value = json.loads((taught.home / "ensembles/squares/default.json").read_text())
    weights = [str((one / "best.safetensors").relative_to(taught.home)) for one in folders]
    (member,) = value["members"]
    gates = member | {
        "run": "gate",
        "predicts": "label",
        "model": gate["model"],
        "weights": weights,
    }
    taught.keep("gated", value | {"members": [member, gates]})
    job = taught.job(pseudo="gated", **gate)
    store = pseudo.ensure(job, "cpu")
    assert note_of(store)["models"] == weights[:1]
    assert OofReader(store / "probs").predicts == "label"
    # Both speak of masks.
    both = replace(taught.job(pseudo="gated"), run_dir=taught.runs / "both" / "fold0")
    assert len(note_of(pseudo.ensure(both, "cpu"))["models"]) == 2
    done = train_fold(job.run_dir, job.recipe, job.spec, job.data, fold=0)
    assert done.score is not None

from __future__ import annotations

import json
from dataclasses import asdict

import numpy as np
import pytest

from kagflow import durable
from kagflow.errors import DataError, RefusedError
from kagflow.infer.postprocess import ClassRule
from kagflow.learn import ensemble, perimage
from kagflow.learn.evaluate import evaluate_run, list_runs, per_image, per_image_ensemble
from kagflow.learn.oof import OofWriter
from kagflow.task import rle
from kagflow.task.folds import write_folds
from kagflow.task.spec import TaskSpec

SPEC = TaskSpec("slug", "segmentation", ("1", "2"))
KINDS = TaskSpec("slug", "classification", ("a", "b"), value_column="Labels", metric="exact_match")
SHAPE = (16, 20)
IMAGES = [f"{number:03}.jpg" for number in range(80)]


class House:
    """A workspace with fetched data, in which runs appear as training leaves them."""

    def __init__(self, root, spec, folds=2):
        self.home, self.spec, self.folds = root, spec, folds
        self.data = root / "data" / "comp"
        rng = np.random.default_rng(0)
        self.truth = {}
        for number, name in enumerate(IMAGES):
            shown = [index for index in range(2) if rng.random() < (0.5, 0.25)[index]]
            if spec.exclusive:
                shown = [number % 2]
            self.truth[name] = {index: self.mask(rng) for index in shown}
        durable.write_json(self.data / "manifest.json", {"profile": "local", "files": {}})
        write_folds(
            self.data / "folds.csv",
            {name: (number // 2, number // 2 % folds) for number, name in enumerate(IMAGES)},
        )
        self.write_labels()

    def mask(self, rng):
        top, left = int(rng.integers(0, 8)), int(rng.integers(0, 12))
        mask = np.zeros(SHAPE, bool)
        mask[top : top + 8, left : left + 8] = True
        return rle.encode(mask)

    def write_labels(self):
        lines = ["ImageId,ClassId,EncodedPixels"]
        lines += [
            f"{n},{c + 1},{text}" for n, found in self.truth.items() for c, text in found.items()
        ]
        if self.spec.kind == "classification":
            lines = ["ImageId,Labels"]
            lines += [f"{n},{' '.join('ab'[c] for c in sorted(f))}" for n, f in self.truth.items()]
        durable.write_text(self.data / "train.csv", "\n".join(lines) + "\n")

    def run(self, name, fold, predicts="mask", *, noise=0.3, seconds=0.5):
        """Train nothing, but leave what a training leaves."""
        folder = self.home / "runs" / "comp" / name / f"fold{fold}"
        rng = np.random.default_rng([fold, len(name)])
        held = [image for number, image in enumerate(IMAGES) if number // 2 % self.folds == fold]
        with OofWriter(folder / "oof", predicts, 2) as store:
            for image in held:
                probs = [self.probability(rng, image, c, predicts, noise) for c in range(2)]
                store.add(image, np.array(probs, np.float32), *SHAPE)
        run = {
            "competition": "comp", "name": name, "fold": fold, "folds": self.folds,
            "predicts": predicts,
            "recipe": {
                "model": {"target": "smp", "kwargs": {}}, "input": {"target": "grey", "kwargs": {}},
                "size": [16, 20], "tta": ["none", "hflip"],
            },
            "finished": True, "seconds": 10.0, "images": len(held), "score": 0.5 + fold / 10,
            "floor": 0.4, "data": durable.sha256_file(self.data / "manifest.json"),
            "seconds_per_image": seconds,
        }  # fmt: skip
        durable.write_json(folder / "run.json", run)
        return folder

    def probability(self, rng, image, index, predicts, noise):
        shown = index in self.truth[image]
        if predicts == "label":
            return np.clip(shown * 0.8 + 0.1 + rng.normal() * noise, 0, 1)
        true = rle.decode(self.truth[image].get(index), *SHAPE) * 0.8
        false = np.zeros(SHAPE)
        if not shown and rng.random() < 0.4:
            false[2:10, 3:11] = 0.8
        return np.clip(true + false + rng.random(SHAPE) * noise / 3, 0, 1)

    def build(self, runs, name="default"):
        return self.built(runs, name).value

    def built(self, runs, name="default"):
        return ensemble.build_ensemble(runs, self.spec, self.data, home=self.home, name=name)


@pytest.fixture
def house(tmp_path):
    return House(tmp_path, SPEC)


def test_one_fold_is_called_what_it_is(house):
    value = house.build({"fpn": [house.run("fpn", 1)]})
    cv = value["cv"]
    assert cv["label"] == "one fold, not cross-fitted"
    assert cv["crossfitted"] is None
    assert (cv["images"], cv["of"], cv["partial"]) == (40, 80, True)
    assert cv["naive"] >= cv["default"]
    assert cv["naive"] > cv["floor"]
    assert value["considered"] == {"fpn": [1]}
    assert (value["competition"], value["profile"], value["schema"]) == ("comp", "local", 1)
    (member,) = value["members"]
    assert member["weights"] == ["runs/comp/fpn/fold1/best.safetensors"]
    assert (member["folds"], member["weight"], member["size"]) == ([1], 1.0, [16, 20])


def test_all_folds_are_cross_fitted_and_cost_adds_up(house):
    folders = [house.run("fpn", 1, seconds=0.5), house.run("fpn", 0, seconds=0.25)]
    value = house.build({"fpn": folders})
    assert value["cv"]["label"] == "cross-fitted over 2 folds"
    assert value["cv"]["floor"] <= value["cv"]["crossfitted"] <= value["cv"]["naive"]
    assert (value["cv"]["images"], value["cv"]["partial"]) == (80, False)
    (member,) = value["members"]
    assert member["folds"] == [0, 1]
    assert [path.split("/")[3] for path in member["weights"]] == ["fold0", "fold1"]
    assert member["seconds_per_image"] == 0.75


def test_members_are_judged_on_the_images_they_share(house):
    runs = {
        "b": [house.run("b", 0), house.run("b", 1)],
        "a": [house.run("a", 0)],
    }
    value = house.build(runs)
    assert [member["run"] for member in value["members"]] == ["a", "b"]
    assert (value["cv"]["images"], value["cv"]["partial"]) == (40, True)
    assert value["cv"]["crossfitted"] is None


def test_a_good_gate_stays_and_a_bad_one_goes(house):
    masks = [house.run("fpn", fold) for fold in (0, 1)]
    good = {"fpn": masks, "gate": [house.run("gate", 0, "label", noise=0.05)]}
    value = house.build(good)
    assert [member["predicts"] for member in value["members"]] == ["mask", "label"]
    assert max(rule["gate"] for rule in value["rules"]) > 0
    assert value["cv"]["images"] == 40
    bad = {"fpn": masks, "blind": [house.run("blind", 0, "label", noise=9)]}
    value = house.build(bad)
    assert [member["run"] for member in value["members"]] == ["fpn"]
    assert [rule["gate"] for rule in value["rules"]] == [0, 0]
    assert (value["cv"]["images"], value["cv"]["crossfitted"] is None) == (80, False)
    assert value["considered"] == {"blind": [0], "fpn": [0, 1]}


def test_the_same_runs_give_the_same_bytes(house):
    runs = {
        "fpn": [house.run("fpn", 0), house.run("fpn", 1)],
        "gate": [house.run("gate", 0, "label")],
    }
    texts = {
        json.dumps(house.build(order), sort_keys=True)
        for order in (runs, dict(reversed(runs.items())))
    }
    assert len(texts) == 1


def test_the_engine_reads_what_is_written(house, tmp_path):
    members = pytest.importorskip("kagflow.infer.members")
    value = house.build({"fpn": [house.run("fpn", 0), house.run("fpn", 1)]})
    durable.write_json(tmp_path / "e.json", value)
    read, rules, spec = members.members_from_config(
        json.loads((tmp_path / "e.json").read_text()), house.home
    )
    assert read[0].weights[1] == house.home / "runs/comp/fpn/fold1/best.safetensors"
    assert (len(rules), spec) == (2, SPEC)


def test_runs_without_a_common_image_are_refused(house):
    runs = {"a": [house.run("a", 0)], "b": [house.run("b", 1)]}
    with pytest.raises(DataError, match="no image that all members predict") as caught:
        house.build(runs)
    assert caught.value.hint


def test_a_gate_alone_is_refused(house):
    with pytest.raises(DataError, match="no run predicts 'mask'"):
        house.build({"gate": [house.run("gate", 0, "label")]})


def test_runs_of_other_data_are_refused(house):
    folder = house.run("fpn", 0)
    durable.write_json(house.data / "manifest.json", {"profile": "local", "files": {"new": 1}})
    with pytest.raises(RefusedError, match="fpn: trained on other data"):
        house.build({"fpn": [folder]})


def test_a_run_that_is_not_finished_is_named(house):
    folder = house.run("fpn", 0)
    (folder / "run.json").unlink()
    with pytest.raises(DataError, match="no finished training"):
        house.build({"fpn": [folder]})


def test_folds_that_overlap_are_refused(house):
    first, second = house.run("fpn", 0), house.run("other", 0)
    with pytest.raises(DataError, match="another fold of the run"):
        house.build({"fpn": [first, second]})


def test_classification_tunes_thresholds(tmp_path):
    house = House(tmp_path, KINDS)
    value = house.build({"cls": [house.run("cls", fold, "label", noise=0.2) for fold in (0, 1)]})
    assert value["cv"]["crossfitted"] > value["cv"]["floor"] + 0.2
    assert all(rule["min_area"] == 0 and rule["gate"] == 0 for rule in value["rules"])
    by_hand = sum(
        {c for c in range(2) if prob[c] >= value["rules"][c]["threshold"]} == set(house.truth[name])
        for name, prob in labels(house, "cls")
    )
    assert value["cv"]["naive"] == pytest.approx(by_hand / 80)


def test_exclusive_classes_are_the_most_probable(tmp_path):
    spec = TaskSpec("s", "classification", ("a", "b"), value_column="Labels", exclusive=True)
    house = House(tmp_path, spec)
    value = house.build({"cls": [house.run("cls", fold, "label", noise=0.6) for fold in (0, 1)]})
    assert value["rules"] == [asdict(ClassRule())] * 2
    right = sum(int(prob.argmax()) in house.truth[name] for name, prob in labels(house, "cls"))
    assert 40 < right < 80
    assert value["cv"]["naive"] == value["cv"]["crossfitted"] == pytest.approx(right / 80)


def labels(house, run):
    from kagflow.learn.oof import OofReader

    for fold in (0, 1):
        reader = OofReader(house.home / "runs" / "comp" / run / f"fold{fold}" / "oof")
        yield from ((name, reader.label(name)) for name in reader.image_ids)


def test_runs_are_listed_with_pooled_scores(house):
    house.run("fpn", 0), house.run("fpn", 1), house.run("unet", 1), house.run("gate", 0, "label")
    (house.home / "runs" / "comp" / "begun" / "fold0").mkdir(parents=True)
    rows = list_runs(house.home / "runs" / "comp")
    assert [(row.run, row.folds, row.images) for row in rows] == [
        ("gate", (0,), 40), ("unet", (1,), 40), ("fpn", (0, 1), 80),
    ]  # fmt: skip
    assert rows[2].score == pytest.approx(0.55)
    assert list_runs(house.home / "none") == []


def test_a_run_is_scored_at_default_rules(house):
    folds = [house.run("fpn", 0), house.run("fpn", 1)]
    scored = evaluate_run(house.home / "runs/comp/fpn", SPEC, house.data)
    built = house.build({"fpn": folds})
    assert scored.score == built["cv"]["default"]
    assert (scored.floor, scored.images, scored.of) == (built["cv"]["floor"], 80, 80)
    assert scored.score == pytest.approx(np.mean(scored.per_class))
    assert scored.nonempty > 0.5
    house.run("gate", 1, "label", noise=0)
    gate = evaluate_run(house.home / "runs/comp/gate", SPEC, house.data)
    assert (gate.score, gate.images, gate.of, gate.folds) == (1, 40, 80, (1,))
    with pytest.raises(DataError, match="no finished fold"):
        evaluate_run(house.home / "runs/comp/none", SPEC, house.data)


def test_every_image_of_an_ensemble_is_accounted_for(house, tmp_path):
    built = house.built({"fpn": [house.run("fpn", 0), house.run("fpn", 1)]}, "best")
    assert built.images.scores.mean() == pytest.approx(built.value["cv"]["crossfitted"])
    assert built.images.folds.tolist() == [number // 2 % 2 for number in range(80)]
    assert built.images.clusters.tolist() == [number // 2 for number in range(80)]
    perimage.write(tmp_path / "best.images.csv", built.images)
    again = per_image_ensemble(tmp_path / "best.json", SPEC)
    assert np.array_equal(again.scores, built.images.scores)
    with pytest.raises(DataError, match=r"other.images.csv is not there") as caught:
        per_image_ensemble(tmp_path / "other.json", SPEC)
    assert "kagflow ensemble --name other" in caught.value.hint


def test_every_image_of_a_run_is_accounted_for(house):
    house.run("fpn", 0), house.run("fpn", 1)
    run = house.home / "runs/comp/fpn"
    found = per_image(run, SPEC, house.data)
    scored = evaluate_run(run, SPEC, house.data)
    assert found.scores.mean() == pytest.approx(scored.score)
    assert found.floors.mean() == pytest.approx(scored.floor)
    assert (found.name, found.scores.shape) == ("fpn", (80, 2))
    house.run("gate", 1, "label", noise=0)
    gate = per_image(house.home / "runs/comp/gate", SPEC, house.data)
    assert (gate.scores == 1).all()
    assert gate.scores.shape == (40, 2)
    with pytest.raises(DataError, match="no finished fold"):
        per_image(house.home / "runs/comp/none", SPEC, house.data)

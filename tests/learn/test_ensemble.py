from __future__ import annotations

import importlib.util
import json
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest

from kagflow import durable
from kagflow.errors import DataError, UsageError
from kagflow.infer.members import members_from_config
from kagflow.infer.postprocess import ClassRule, apply, mean_of
from kagflow.learn import perimage
from kagflow.learn.evaluate import list_runs, per_image, per_image_ensemble
from kagflow.learn.oof import OofReader
from kagflow.task import rle
from kagflow.task.folds import write_folds
from kagflow.task.score import score_rows
from kagflow.task.spec import TaskSpec


def _load():
    # Under importlib mode, neighbours are no importable names.
    path = Path(__file__).with_name("ensemble_house.py")
    spec = importlib.util.spec_from_file_location("ensemble_house", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


built = _load()
House, IMAGES, KINDS, SHAPE, SPEC = (
    getattr(built, name) for name in ("House", "IMAGES", "KINDS", "SHAPE", "SPEC")
)


class Notes:
    """Progress that keeps what is said."""

    def __init__(self):
        self.said = []

    def note(self, text):
        self.said.append(text)

    def start(self, *_): ...

    def advance(self, n=1): ...

    def finish(self): ...


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
    notes = Notes()
    runs = {"bb": [house.run("bb", 0), house.run("bb", 1)], "a": [house.run("a", 0)]}
    value = house.built(runs, progress=notes).value
    # Each invents blobs of its own, which a mean of both forgets.
    assert {member["run"]: member["weight"] for member in value["members"]} == {"a": 0.5, "bb": 0.5}
    assert (value["cv"]["images"], value["cv"]["partial"]) == (40, True)
    assert value["cv"]["missing"] == {"a": [1]}
    assert value["cv"]["crossfitted"] is None
    assert notes.said == ["a: not every fold is trained; judged on 40 of 80 images"]
    with pytest.raises(DataError, match="a: not every fold is trained") as caught:
        house.build(runs, complete=True)
    assert "fold=all" in caught.value.hint


def test_a_run_that_is_left_out_takes_no_images_away(house):
    notes = Notes()
    runs = {
        "fpn": [house.run("fpn", 0), house.run("fpn", 1)],
        "poor": [house.run("poor", 0, noise=30)],
    }
    value = house.built(runs, progress=notes).value
    assert [member["run"] for member in value["members"]] == ["fpn"]
    assert (value["cv"]["images"], value["cv"]["missing"]) == (80, {})
    assert value["considered"] == {"fpn": [0, 1], "poor": [0]}
    assert [one["kind"] for one in value["candidates"]][:2] == ["single", "equal"]
    assert "poor: no gain on unseen images, left out" in notes.said


def three(house):
    return {
        name: [house.run(name, fold, noise=noise, seconds=seconds) for fold in (0, 1)]
        for name, noise, seconds in (("a", 0.3, 0.5), ("bb", 0.3, 2.0), ("ccc", 0.9, 0.25))
    }


def test_every_candidate_is_scored_three_times(house):
    value = house.build(three(house))
    kinds = [one["kind"] for one in value["candidates"]]
    assert kinds[:4] == ["single", "equal", "bagged greedy", "greedy"]
    for one in value["candidates"]:
        assert one["naive"] >= max(one["default"], value["cv"]["floor"])
        assert sum(one["weights"].values()) == pytest.approx(1)
        assert one["taken"] == (one["kind"] == "single" or one["gain"] > one["error"])
    assert value["candidates"][1]["crossfitted"] > value["candidates"][0]["crossfitted"] + 0.02
    assert value["kind"] != "single"
    assert sum(member["weight"] for member in value["members"]) == pytest.approx(1)
    assert value["gains"]["ensemble"]["gain"] > 0.01
    assert "gate" not in value["gains"]
    low, high = value["cv"]["interval"]
    assert low < value["cv"]["crossfitted"] < high


def test_members_go_in_the_order_of_worth_per_second(house):
    value = house.build(three(house))
    shed = value["shedding"]
    assert [one["run"] for one in shed] == [member["run"] for member in value["members"]][::-1]
    # bb is as good as a, at four times the cost.
    order = [one["run"] for one in shed]
    assert order.index("bb") < order.index("a")
    assert sum(one["worth"] for one in shed) == pytest.approx(
        value["cv"]["naive"] - value["cv"]["floor"]
    )
    assert {one["run"]: one["seconds_per_image"] for one in shed}["bb"] == 4.0


def test_minutes_bound_the_choice(house):
    runs = three(house)
    assert house.build(runs, images=60)["cost"]["limit_minutes"] is None
    # a takes 1 s an image with both folds, bb 4, ccc .5: two of them fit, bb never.
    tight = house.build(runs, minutes=1.5, images=60)
    assert {member["run"] for member in tight["members"]} == {"a", "ccc"}
    assert tight["cost"] == {
        "seconds_per_image": 1.5, "measured_on": [""], "images": 60, "minutes": 1.5,
        "limit_minutes": 1.5,
    }  # fmt: skip
    gated = runs | {"gate": [house.run("gate", fold, "label", noise=0.05) for fold in (0, 1)]}
    assert house.build(gated, minutes=1.5, images=60)["cost"]["minutes"] <= 1.5
    with pytest.raises(UsageError, match=r"no run fits 0.4 minutes: the fastest, ccc, takes 0.5"):
        house.build(runs, minutes=0.4, images=60)


def test_a_good_gate_stays_and_a_bad_one_goes(house):
    masks = [house.run("fpn", fold) for fold in (0, 1)]
    good = {"fpn": masks, "gate": [house.run("gate", 0, "label", noise=0.05)]}
    value = house.build(good)
    assert [member["predicts"] for member in value["members"]] == ["mask", "label"]
    assert max(rule["gate"] for rule in value["rules"]) > 0
    gain = value["gains"]["gate"]
    assert gain["interval"][0] < gain["gain"] < gain["interval"][1]
    assert gain["gain"] > 0.01
    assert set(value["gains"]) == {"tuning", "gate"}
    assert [one["auc"] > 0.95 for one in value["gates"]] == [True, True]
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
    value = house.build({"fpn": [house.run("fpn", 0), house.run("fpn", 1)]})
    durable.write_json(tmp_path / "e.json", value)
    read, rules, spec = members_from_config(
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
    with pytest.raises(DataError, match="fpn: trained on other data"):
        house.build({"fpn": [folder]})
    with pytest.raises(DataError, match="fpn: trained on other data"):
        per_image(house.home / "runs/comp/fpn", SPEC, house.data)


def test_a_store_of_other_folds_is_refused(house):
    folders = [house.run("fpn", 0), house.run("fpn", 1)]
    changed = {name: (number // 2, number // 4 % 2) for number, name in enumerate(IMAGES)}
    write_folds(house.data / "folds.csv", changed)
    wanted = "fold0 predicts other images than fold 0 has now: 20 too many, 20 missing; 002.jpg"
    with pytest.raises(DataError, match=wanted) as caught:
        house.build({"fpn": folders})
    assert caught.value.exit_code == 6
    with pytest.raises(DataError, match=wanted):
        per_image(house.home / "runs/comp/fpn", SPEC, house.data)


def test_a_store_of_other_images_is_refused(house):
    folder = house.run("fpn", 0)
    fewer = {name: (number // 2, number // 2 % 2) for number, name in enumerate(IMAGES[4:], 4)}
    write_folds(house.data / "folds.csv", fewer)
    with pytest.raises(DataError, match=r"2 too many, 0 missing; 000.jpg is in no fold"):
        house.build({"fpn": [folder]})


def test_probabilities_that_are_none_are_refused(house):
    masks, gate = house.run("fpn", 0), house.run("gate", 0, "label")
    text = (gate / "oof" / "labels.csv").read_text().splitlines()
    for bad in ("nan", "1.5", "-0.1", "inf"):
        spoilt = [*text[:3], f"{text[3].split(',')[0]},0.5,{bad}", *text[4:]]
        (gate / "oof" / "labels.csv").write_text("\n".join(spoilt) + "\n")
        with pytest.raises(DataError, match=r"gate.fold0.oof: 004.jpg has probabilities") as caught:
            house.build({"fpn": [masks], "gate": [gate]})
        assert caught.value.exit_code == 6


def test_a_store_of_other_classes_is_refused(house):
    folder = house.run("fpn", 0)
    house.spec = TaskSpec("slug", "segmentation", ("1", "2", "3"))
    with pytest.raises(DataError, match="fpn/fold0/oof predicts 2 classes of 3"):
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
    assert (rows[2].seconds, rows[2].hours) == (20, pytest.approx(20 / 3600))
    assert rows[2].seconds_per_image == 1.0
    assert list_runs(house.home / "none") == []


def test_every_image_of_an_ensemble_is_accounted_for(house, tmp_path):
    built = house.built({"fpn": [house.run("fpn", 0), house.run("fpn", 1)]}, name="best")
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
    cv = house.build({"fpn": [run / "fold0", run / "fold1"]})["cv"]
    assert found.scores.mean() == pytest.approx(cv["default"])
    assert found.floors.mean() == pytest.approx(cv["floor"])
    assert (found.name, found.scores.shape) == ("fpn", (80, 2))
    house.run("gate", 1, "label", noise=0)
    gate = per_image(house.home / "runs/comp/gate", SPEC, house.data)
    assert (gate.scores == 1).all()
    assert gate.scores.shape == (40, 2)
    with pytest.raises(DataError, match="no finished fold"):
        per_image(house.home / "runs/comp/none", SPEC, house.data)


def test_what_is_scored_is_what_the_kernel_applies(house):
    """Blend the stores by the weights that were written, apply the rules, score by hand."""
    value = house.build(three(house) | {"gate": [house.run("gate", f, "label") for f in (0, 1)]})
    assert {member["mean"] for member in value["members"]} == {"probabilities"}
    members, rules, spec = members_from_config(value, house.home)
    rows = {}
    for number, name in enumerate(IMAGES):
        maps, seen = [], []
        for one in members:
            store = OofReader(one.weights[number // 2 % 2].parent / "oof")
            if one.predicts == "label":
                seen.append(store.label(name) * np.float32(one.weight))
            else:
                maps.append(store.mask(name) * np.float32(one.weight))
        masks = apply(mean_of(maps), mean_of(seen) if seen else None, rules)
        rows[name] = {c: rle.encode(mask) for c, mask in enumerate(masks) if mask.any()}
    assert score_rows(rows, house.truth, spec).value == pytest.approx(
        value["cv"]["naive"], abs=1e-12
    )

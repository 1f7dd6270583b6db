"""What the gallery draws is what the kernel would predict from the same maps."""

from __future__ import annotations

import json

import numpy as np
import pytest

from kagflow.infer.postprocess import expit, log_odds
from kagflow.learn.evidence import THRESHOLDS
from kagflow.report import judge
from kagflow.task import rle


@pytest.fixture
def value(house):
    house.run("one").run("two", noise=0.5).run("gate", predicts="label").ensemble("one")
    value = json.loads((house.root / "ensembles" / "tiles" / "default.json").read_text())
    # The search need not find that these two gain by each other.
    (one,) = value["members"]
    value["members"] = [{**one, "run": run, "weight": 0.5} for run in ("one", "two")]
    return value


def look(house, value, name):
    found = judge.of_ensemble(value, house.root / "runs" / "tiles", house.spec)
    return found, found.look(name)


def test_members_are_averaged_by_their_weights_and_ruled(house, value):
    weights = {"one": 3.0, "two": 1.0}
    for member in value["members"]:
        member["weight"] = weights[member["run"]]
    value["rules"] = [{"threshold": 0.4, "min_area": 200}, {"threshold": 0.6}, {"empty": True}]
    name = house.names[4]
    found, seen = look(house, value, name)
    one, two = found.each_mask(name)
    np.testing.assert_allclose(seen.probs, 0.75 * one + 0.25 * two, atol=1e-6)
    above = seen.probs >= np.array([0.4, 0.6, 2.0])[:, None, None]
    above[0] &= above[0].sum() >= 200
    assert np.array_equal(seen.masks, above)
    assert found.image_ids == set(house.names)


def test_logits_are_averaged_where_the_ensemble_says_so(house, value):
    for member in value["members"]:
        member["mean"] = "logits"
    name = house.names[4]
    found, seen = look(house, value, name)
    one, two = found.each_mask(name)
    np.testing.assert_allclose(seen.probs, expit((log_odds(one) + log_odds(two)) / 2), atol=1e-5)


def test_a_gate_vetoes(house, value):
    gate = {**value["members"][0], "run": "gate", "predicts": "label"}
    name = next(name for name in house.names if house.truth[name])
    value["rules"] = [{"threshold": 0.01, "gate": 0.0}] * 3
    _, before = look(house, value, name)
    assert before.masks.any(axis=(1, 2)).all()
    value["members"].append(gate)
    value["rules"] = [{"threshold": 0.01, "gate": 0.5}] * 3
    found, seen = look(house, value, name)
    (voice,) = found.gates
    kept = voice.store[name].label(name) >= 0.5
    assert np.array_equal(seen.masks.any(axis=(1, 2)), kept)
    assert np.array_equal(seen.found, kept)


def test_areas_above_thresholds_are_those_of_the_drawn_maps(house, value):
    for member, weight in zip(value["members"], (3.0, 1.0), strict=True):
        member["weight"] = weight
    names = house.names[:5]
    found, _ = look(house, value, names[0])
    clusters = {name: number for number, name in enumerate(names)}
    counted = judge.evidence(found, house.truth, clusters)
    assert list(counted.image_ids) == names
    at = int(np.flatnonzero(THRESHOLDS == 0.5)[0])
    for row, name in enumerate(names):
        above = found.probs(name) >= 0.5
        real = [rle.decode(house.truth[name].get(c, ""), *house.sizes[name]) > 0 for c in range(3)]
        assert counted.predicted[row, :, at].tolist() == above.sum(axis=(1, 2)).tolist()
        assert counted.true[row].tolist() == [mask.sum() for mask in real]
        assert counted.intersection[row, :, at].tolist() == [
            (mask & other).sum() for mask, other in zip(above, real, strict=True)
        ]
    assert counted.gate is None
